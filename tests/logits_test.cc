// logits: the chosen rows, normed and scored, decode rows and prefill rows each in their own phase.
#include <ggml.h>
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "steps/model_bodies.h"
#include "support/attention_case.h"
#include "support/weights.h"

namespace bough {
namespace {

constexpr int64_t kRows = 12, kWidth = 64, kVocab = 130;

struct Problem {
  explicit Problem(int type) : output(type, kVocab, kWidth, 1) {}

  std::vector<float> logits(const ModelBodies& bodies, const std::vector<int32_t>& rows, int64_t decode_rows) const {
    const auto count = static_cast<int64_t>(rows.size());
    std::vector<float> normed(static_cast<size_t>(count * kWidth)), result(static_cast<size_t>(count * kVocab), -9.0F);
    run_logits(bodies,
               {x.data(), rows.data(), count, decode_rows, weight.data(), 1e-5F, output.tensor(), nullptr, normed.data(), result.data()});
    return result;
  }

  // norm, then the precise linear, of one row.
  std::vector<float> expected(const ModelBodies& bodies, int32_t row, Phase phase) const {
    std::vector<float> normed(static_cast<size_t>(kWidth)), result(static_cast<size_t>(kVocab));
    bodies.norm({x.data() + row * kWidth, weight.data(), 1, kWidth, 1e-5F, normed.data()});
    const LinearArgs args{normed.data(), 1, output.tensor(), phase, false, result.data(), nullptr, nullptr, true};
    bodies.linear({&args, 1});
    return result;
  }

  test::RandomMatrix output;
  std::vector<float> x = test::random_rows(kRows, kWidth, 2);
  std::vector<float> weight = test::random_rows(1, kWidth, 3);
};

class Logits : public testing::TestWithParam<int> {};

TEST_P(Logits, EachRowInItsPhase) {
  const Problem problem(GetParam());
  const std::vector<int32_t> rows = {0, 2, 3, 7, 11};
  for (const ModelBodies& bodies : model_bodies()) {
    for (const int64_t decode_rows : {0, 1, 3, 4, 12}) {
      const std::vector<float> logits = problem.logits(bodies, rows, decode_rows);
      for (size_t i = 0; i < rows.size(); ++i) {
        const std::vector<float> row = problem.expected(bodies, rows[i], rows[i] < decode_rows ? Phase::decode : Phase::prefill);
        EXPECT_TRUE(test::same_bits({logits.data() + static_cast<int64_t>(i) * kVocab, static_cast<size_t>(kVocab)}, row))
            << bodies.name << ", row " << rows[i] << " of " << decode_rows << " decode rows";
      }
    }
  }
}

TEST_P(Logits, EqualsTheOracle) {
  const Problem problem(GetParam());
  const std::vector<int32_t> rows = {1, 4, 10};
  EXPECT_LE(test::relative_error(problem.logits(model_bodies().front(), rows, 2), problem.logits(model_bodies().back(), rows, 2)), 1e-2);
}

TEST_P(Logits, BiasThenSoftcap) {
  const Problem problem(GetParam());
  const std::vector<int32_t> rows = {2, 9};
  const std::vector<float> bias = test::random_rows(1, kVocab, 4);
  for (const ModelBodies& bodies : model_bodies()) {
    std::vector<float> expected = problem.logits(bodies, rows, 4);
    for (size_t i = 0; i < expected.size(); ++i) expected[i] = 2.5F * std::tanh((expected[i] + bias[i % bias.size()]) / 2.5F);
    std::vector<float> normed(2 * kWidth), logits(2 * kVocab);
    run_logits(bodies, {problem.x.data(), rows.data(), 2, 4, problem.weight.data(), 1e-5F, problem.output.tensor(), nullptr, normed.data(),
                        logits.data(), bias.data(), 2.5F});
    EXPECT_LE(test::relative_error(logits, expected), 1e-6) << bodies.name;
  }
}

TEST_P(Logits, NoRowsAtAll) { EXPECT_TRUE(Problem(GetParam()).logits(model_bodies().front(), {}, 3).empty()); }

INSTANTIATE_TEST_SUITE_P(Types, Logits, testing::Values(GGML_TYPE_F32, GGML_TYPE_Q8_0, GGML_TYPE_Q4_1),
                         [](const auto& info) { return test::type_name(info.param); });

}  // namespace
}  // namespace bough
