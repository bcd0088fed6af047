// Session files: what was restored gives the bits of what was never saved; whatever is wrong with a file is one clear sentence.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "base/file.h"
#include "kv/session_format.h"
#include "support/attention_case.h"
#include "support/temp_folder.h"
#include "support/tiny_engine.h"

namespace bough {
namespace {

using test::file_bytes;
using test::same_bits;
using test::session_of;
using test::tiny_text;
using test::TinyFile;
using test::write_file;
using testing::HasSubstr;

std::string error_of(const Status& status) { return std::string(code_name(status.code())) + ": " + status.message(); }

// The rest of the text, a question to sample from, five decoded tokens: all logits.
std::vector<float> go_on(Session& session, const std::vector<TokenId>& text) {
  EXPECT_TRUE(session.append(std::span(text).subspan(static_cast<size_t>(session.length()))).ok());
  return test::asked(session);
}

std::unique_ptr<Session> restored(Engine& engine, const std::string& path, int64_t tokens = INT64_MAX) {
  Result<std::unique_ptr<Session>> session = engine.restore_session(path, {tokens});
  EXPECT_TRUE(session.ok()) << session.status().message();
  return session.ok() ? std::move(*session) : nullptr;
}

std::vector<std::string> all_plans() {
  std::vector<std::string> plans = {test::kSmallPlan};
  for (const std::string& name : preset_names()) plans.push_back(name);
  return plans;
}

class SessionFileTypes : public testing::TestWithParam<DType> {};

TEST_P(SessionFileTypes, RestoredEqualsNeverSaved) {
  const test::TempFolder folder;
  const TinyFile file(test::peaked_model());
  for (const std::string& plan : all_plans()) {
    const auto engine = file.engine(plan, GetParam(), 1), other = file.engine(plan, GetParam(), 2);
    ASSERT_TRUE(engine != nullptr && other != nullptr);
    for (const int64_t length : {64, 100, 703, 1472}) {
      const std::vector<TokenId> text = tiny_text(length);
      const auto never = session_of(*engine);
      ASSERT_TRUE(never->append(text).ok());
      ASSERT_EQ(never->savable(), length / 64 * 64);
      ASSERT_TRUE(never->save(folder / "s").ok());
      const auto session = restored(*other, folder / "s");
      ASSERT_NE(session, nullptr);
      EXPECT_EQ(session->length(), length / 64 * 64);
      EXPECT_EQ(session->savable(), session->length());
      EXPECT_TRUE(same_bits(go_on(*session, text), go_on(*never, text))) << plan << ", " << length << " tokens";
    }
  }
}

// Written while reading goes on, across the engine's own slices, and gone on with by a second session.
TEST_P(SessionFileTypes, KeptEqualsNeverSaved) {
  const test::TempFolder folder;
  const TinyFile file(test::peaked_model());
  const auto engine = file.engine(test::kSmallPlan, GetParam());
  ASSERT_NE(engine, nullptr);
  const std::vector<TokenId> text = tiny_text(4500);
  const auto never = session_of(*engine), kept = session_of(*engine);
  ASSERT_TRUE(kept->keep(folder / "s", "label").ok());
  ASSERT_TRUE(kept->append(std::span(text).first(1000)).ok());
  const auto first = restored(*engine, folder / "s");
  ASSERT_NE(first, nullptr);
  EXPECT_EQ(first->length(), 960);
  ASSERT_TRUE(kept->append(std::span(text).subspan(1000, 64)).ok());
  EXPECT_EQ(kept->savable(), 960) << "a page that two appends share is not one that is read at once";
  ASSERT_EQ(first->keep(folder / "s", "label").code(), Code::io_error) << "the other session still writes to it";
  ASSERT_TRUE(kept->rollback(960).ok());
  ASSERT_TRUE(kept->append(std::span(text).subspan(960)).ok());
  EXPECT_TRUE(kept->keeping().ok());
  const auto session = restored(*engine, folder / "s");
  ASSERT_NE(session, nullptr);
  EXPECT_EQ(session->length(), 4480);
  const std::vector<float> expected = go_on(*never, text);
  EXPECT_TRUE(same_bits(go_on(*session, text), expected));
  EXPECT_TRUE(same_bits(go_on(*restored(*engine, folder / "s", 2111), text), expected));
}

INSTANTIATE_TEST_SUITE_P(Types, SessionFileTypes, testing::ValuesIn(kAllDTypes), [](const auto& info) { return name_of(info.param); });

class SessionFile : public testing::Test {
 protected:
  SessionFile() : file_(test::peaked_model()), engine_(file_.engine(test::kSmallPlan)) {}
  void SetUp() override { ASSERT_NE(engine_, nullptr); }

  // A file of `tokens` tokens in chunks of at most 2,048.
  std::string saved(int64_t tokens, const std::string& name = "s") {
    const auto session = session_of(*engine_);
    EXPECT_TRUE(session->keep(folder_ / name, "the beginning").ok());
    EXPECT_TRUE(session->append(tiny_text(tokens)).ok());
    EXPECT_TRUE(session->keeping().ok());
    return folder_ / name;
  }
  std::string restore_error(Engine& engine, const std::string& path) {
    const auto session = engine.restore_session(path);
    return session.ok() ? "restored " + std::to_string((*session)->length()) : error_of(session.status());
  }

  test::TempFolder folder_;
  TinyFile file_;
  std::unique_ptr<Engine> engine_;
};

TEST_F(SessionFile, TailsAndAnswersAreNotSavable) {
  const auto s = session_of(*engine_);
  EXPECT_EQ(s->save(folder_ / "s").code(), Code::invalid_argument);
  ASSERT_TRUE(s->append(tiny_text(200), {.will_sample = true}).ok());  // the last 64 are the tail
  EXPECT_EQ(s->savable(), 128);
  ASSERT_TRUE(s->decode(5).ok());
  ASSERT_TRUE(s->append(tiny_text(500)).ok());
  EXPECT_EQ(s->savable(), 128);
  ASSERT_TRUE(s->rollback(100).ok());
  EXPECT_EQ(s->savable(), 64);
  ASSERT_TRUE(s->append(tiny_text(300)).ok());
  EXPECT_EQ(s->savable(), 64);
  ASSERT_TRUE(s->rollback(64).ok());
  ASSERT_TRUE(s->append(tiny_text(300)).ok());
  EXPECT_EQ(s->savable(), 320);
  ASSERT_TRUE(s->fill_with_copies(1000).ok());
  EXPECT_EQ(s->savable(), 320);
}

TEST_F(SessionFile, ServesPlansWhoseSingleRowsSelectOtherwise) {
  const std::string stages = R"({"sinks":64,"window":128,"first":null,"refresh":[8,4],"stages":[{"chunk":32,"piece":8},)"
                             R"({"chunk":8,"keep":256,"rounds":1)";
  const auto one = file_.engine(stages + R"(}],"k":64})"),
             other = file_.engine(stages + R"(,"row_piece":1,"row_keep":320}],"k":64,"row_k":32,"tail":8})");
  const auto session = session_of(*one);
  ASSERT_TRUE(session->append(tiny_text(640)).ok());
  ASSERT_TRUE(session->save(folder_ / "s").ok());
  EXPECT_EQ(restore_error(*other, folder_ / "s"), "restored 640");
  const auto coarse = file_.engine(stages + R"(}],"k":128})");
  EXPECT_THAT(restore_error(*coarse, folder_ / "s"), HasSubstr("was read with the plan {"));
}

TEST_F(SessionFile, RollbackIntoWhatIsKeptEndsKeeping) {
  const auto s = session_of(*engine_);
  ASSERT_TRUE(s->keep(folder_ / "s", "").ok());
  ASSERT_TRUE(s->append(tiny_text(640)).ok());
  ASSERT_TRUE(s->rollback(320).ok());
  ASSERT_TRUE(s->append(tiny_text(640, 77)).ok());
  const auto again = restored(*engine_, folder_ / "s");
  ASSERT_NE(again, nullptr);
  const std::vector<TokenId> text = tiny_text(640);
  EXPECT_TRUE(std::equal(text.begin(), text.end(), again->tokens().begin(), again->tokens().end()));
}

// A session uses pages where they lie in the file: what it writes to them stays its own, and the file may be removed or replaced.
TEST_F(SessionFile, WhatIsRestoredDoesNotTouchTheFile) {
  const std::string path = saved(640);
  const std::vector<std::byte> bytes = file_bytes(path);
  const auto never = session_of(*engine_), a = restored(*engine_, path), b = restored(*engine_, path);
  ASSERT_TRUE(a != nullptr && b != nullptr);
  const std::vector<TokenId> text = tiny_text(640), others = tiny_text(300, 77);
  ASSERT_TRUE(never->append(text).ok() && never->rollback(330).ok() && never->append(others).ok());
  ASSERT_TRUE(a->rollback(330).ok() && a->append(others).ok());
  EXPECT_EQ(file_bytes(path), bytes);
  ASSERT_TRUE(std::filesystem::remove(path));
  ASSERT_TRUE(session_of(*engine_)->keep(path, "another").ok());
  EXPECT_TRUE(same_bits(go_on(*a, text), go_on(*never, text)));
  const auto whole = session_of(*engine_);
  ASSERT_TRUE(whole->append(text).ok());
  EXPECT_TRUE(same_bits(go_on(*b, text), go_on(*whole, text)));
}

TEST_F(SessionFile, KeepRefusesAnotherText) {
  const std::string path = saved(640);
  const auto s = session_of(*engine_);
  ASSERT_TRUE(s->append(tiny_text(640, 77)).ok());
  EXPECT_THAT(error_of(s->keep(path, "")), HasSubstr("640 tokens, of which this session begins with 0"));
  EXPECT_EQ(restore_error(*engine_, path), "restored 640");
}

TEST_F(SessionFile, ForeignFiles) {
  const std::string path = saved(640);
  const TinyFile other_weights(test::peaked_model(), 12);
  EXPECT_THAT(restore_error(*other_weights.engine(test::kSmallPlan), path), HasSubstr("was read by another model"));
  EXPECT_THAT(restore_error(*file_.engine(test::kSmallPlan, DType::bf16), path), HasSubstr("in f32"));
  EXPECT_THAT(restore_error(*file_.engine("dense"), path), HasSubstr("was read with the plan {"));
  std::string other_refresh = test::kSmallPlan;
  other_refresh.replace(other_refresh.find("[4,2]"), 5, "[8,8]");
  EXPECT_EQ(restore_error(*file_.engine(other_refresh), path), "restored 640") << "reading does not depend on the refresh";
}

// The same model under another name and path, and with another chat template, is the same.
TEST_F(SessionFile, FingerprintsAreOfContents) {
  const std::string path = saved(640);
  Result<GgufBuilder> builder = build_tiny_model(test::peaked_model(), 11);
  ASSERT_TRUE(builder.ok());
  builder->set("general.name", "renamed");
  builder->set("tokenizer.chat_template", "{{ messages[0].content }}");
  const auto restores = [&]() -> std::string {
    EXPECT_TRUE(write_bytes(folder_ / "m.gguf", builder->build()).ok());
    const auto engine = Engine::open({folder_ / "m.gguf", test::kSmallPlan, DType::f32, 1, nullptr, 0});
    return engine.ok() ? restore_error(**engine, path) : engine.status().message();
  };
  EXPECT_EQ(restores(), "restored 640");
  builder->set("tokenizer.ggml.eos_token_id", uint32_t{0});
  EXPECT_THAT(restores(), HasSubstr("another tokenizer"));
  builder->set("tokenizer.ggml.eos_token_id", static_cast<uint32_t>(kTinyEos));
  EXPECT_EQ(restores(), "restored 640");
  builder->set("llama.rope.freq_base", 20000.0F);
  EXPECT_THAT(restores(), HasSubstr("another model, 'tiny', than this one, 'renamed'"));
}

TEST_F(SessionFile, FilesThatAreNone) {
  EXPECT_THAT(restore_error(*engine_, folder_ / "none"), HasSubstr("not found"));
  EXPECT_THAT(restore_error(*engine_, folder_.path()), HasSubstr("is not a regular file"));
  EXPECT_THAT(restore_error(*engine_, "/dev/zero"), HasSubstr("is not a regular file"));
  EXPECT_THAT(restore_error(*engine_, file_.path()), HasSubstr("is not a session file"));
  write_file(folder_ / "empty", {});
  EXPECT_THAT(restore_error(*engine_, folder_ / "empty"), HasSubstr("is not a session file"));
  EXPECT_EQ(session_of(*engine_)->keep(file_.path(), "").code(), Code::corrupt);
  EXPECT_THAT(error_of(engine_->restore_session(folder_ / "s", {-1}).status()), HasSubstr("-1"));
}

TEST_F(SessionFile, NewerFormatsAndOtherByteOrders) {
  std::vector<std::byte> bytes = file_bytes(saved(640));
  bytes[offsetof(FixedHead, version)] = std::byte{7};
  write_file(folder_ / "new", bytes);
  EXPECT_THAT(restore_error(*engine_, folder_ / "new"), HasSubstr("has format 7, this program reads format 2"));
  bytes = file_bytes(folder_ / "s");
  std::reverse(bytes.begin() + offsetof(FixedHead, byte_order), bytes.begin() + offsetof(FixedHead, byte_order) + 4);
  write_file(folder_ / "big", bytes);
  EXPECT_THAT(restore_error(*engine_, folder_ / "big"), HasSubstr("the other byte order"));
}

TEST_F(SessionFile, EveryBytesDamageIsSeen) {
  const std::string path = saved(2048 + 320);
  const std::vector<std::byte> bytes = file_bytes(path);
  const Result<SessionReader> reader = SessionReader::open(machine_files(), path);
  ASSERT_TRUE(reader.ok());
  const size_t page = static_cast<size_t>(reader->header().page_bytes), stride = page_stride(page);
  const size_t head = encode_header(reader->header()).size(), second = chunk_end(head, 32, page);
  std::vector<size_t> places;
  const auto add = [&](size_t from, size_t to, size_t step) {
    for (size_t at = from; at < to; at += step) places.push_back(at);
  };
  add(0, head, 1);                          // header
  add(head, head + sizeof(RecordHead), 1);  // heads of both records
  add(second, second + sizeof(RecordHead), 1);
  add(head + sizeof(RecordHead), head + record_bytes(32), 97);  // tokens and checksums
  add(second + sizeof(RecordHead), second + record_bytes(5), 13);
  for (size_t i = 0; i < 32; ++i) add(pages_at(head, 32) + i * stride, pages_at(head, 32) + i * stride + page, page / 2 - 1);
  for (size_t i = 0; i < 5; ++i) add(pages_at(second, 5) + i * stride, pages_at(second, 5) + i * stride + page, page / 3 - 1);
  ASSERT_EQ(bytes.size(), chunk_end(second, 5, page));
  for (const size_t at : places) {
    std::vector<std::byte> damaged = bytes;
    damaged[at] ^= std::byte{0x10};
    write_file(folder_ / "d", damaged);
    const auto session = engine_->restore_session(folder_ / "d");
    ASSERT_FALSE(session.ok()) << "byte " << at;
    EXPECT_THAT(session.status().message(), HasSubstr(folder_ / "d")) << "byte " << at;
    EXPECT_NE(session.status().code(), Code::out_of_memory) << "byte " << at;
  }
  EXPECT_EQ(engine_->cache_bytes(), 0);
  EXPECT_EQ(restore_error(*engine_, path), "restored 2368");
}

TEST_F(SessionFile, SwappedPagesAreSeen) {
  std::vector<std::byte> bytes = file_bytes(saved(640));
  const uint64_t page_bytes = SessionReader::open(machine_files(), folder_ / "s")->header().page_bytes;
  const auto page = static_cast<std::ptrdiff_t>(page_stride(page_bytes));
  std::swap_ranges(bytes.end() - 2 * page, bytes.end() - page, bytes.end() - page);
  write_file(folder_ / "s", bytes);
  EXPECT_THAT(restore_error(*engine_, folder_ / "s"), HasSubstr("page 8 of 10 is not what was written"));
}

// Files that are whole and were written by something else: int4 pages of other sizes, a row that says it is in another place.
TEST_F(SessionFile, ForeignInt4Pages) {
  engine_ = file_.engine(test::kSmallPlan, DType::i4);
  const std::string path = saved(640);
  const Result<SessionReader> reader = SessionReader::open(machine_files(), path);
  ASSERT_TRUE(reader.ok());
  SessionHeader header = reader->header();
  const size_t bytes = static_cast<size_t>(header.page_bytes);
  const Result<MappedPages> mapped = reader->map_pages(0, 10);
  ASSERT_TRUE(mapped.ok());
  const std::vector<std::byte*>& pages = mapped->pages;
  const auto rewritten = [&] {
    EXPECT_TRUE(SessionWriter::write_whole(machine_files(), folder_ / "w", header, reader->tokens(), pages).ok());
    return restore_error(*engine_, folder_ / "w");
  };
  EXPECT_EQ(rewritten(), "restored 640");
  pages[7][bytes - 1] = std::byte{64};
  EXPECT_EQ(rewritten(), "corrupt: '" + (folder_ / "w") + "' is damaged: page 7 has a row that is not in its place");
  header.page_bytes -= 64;
  EXPECT_THAT(rewritten(), HasSubstr(std::to_string(bytes - 64) + " bytes a page; needed are "));
}

// A file cut in a whole chunk is an error; an unfinished chunk, one without its mark, is as if it were not there.
TEST_F(SessionFile, CutFiles) {
  const std::string path = saved(2048 + 320);
  const std::vector<std::byte> bytes = file_bytes(path);
  const Result<SessionReader> reader = SessionReader::open(machine_files(), path);
  const size_t page = static_cast<size_t>(reader->header().page_bytes);
  const size_t head = encode_header(reader->header()).size(), second = chunk_end(head, 32, page);
  const auto cut = [&](size_t keep) {
    write_file(folder_ / "c", std::vector<std::byte>(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(keep)));
    return restore_error(*engine_, folder_ / "c");
  };
  for (const size_t keep : {size_t{8}, size_t{60}, head - 1, head + 20, head + 5000, second - 1, second + 8, bytes.size() - 1}) {
    EXPECT_THAT(cut(keep), HasSubstr("is truncated")) << keep;
  }
  EXPECT_THAT(cut(3), HasSubstr("is not a session file"));
  EXPECT_EQ(cut(head), "restored 0");
  EXPECT_EQ(cut(second), "restored 2048");
  EXPECT_EQ(cut(second + 7), "restored 2048");
  std::vector<std::byte> unfinished = bytes;
  std::fill_n(unfinished.begin() + static_cast<std::ptrdiff_t>(second), 8, std::byte{0});
  write_file(folder_ / "u", unfinished);
  EXPECT_EQ(restore_error(*engine_, folder_ / "u"), "restored 2048");
  const auto session = restored(*engine_, folder_ / "u");
  ASSERT_TRUE(session->keep(folder_ / "u", "").ok());
  ASSERT_TRUE(session->append(std::span<const TokenId>(tiny_text(2368)).subspan(2048)).ok());
  EXPECT_EQ(file_bytes(folder_ / "u"), bytes);
}

TEST_F(SessionFile, SaveReplacesTheWholeFile) {
  const std::string path = saved(2368);
  const auto s = session_of(*engine_);
  ASSERT_TRUE(s->append(tiny_text(640, 77)).ok());
  ASSERT_TRUE(s->save(path).ok());
  EXPECT_EQ(restore_error(*engine_, path), "restored 640");
  EXPECT_FALSE(std::filesystem::exists(path + ".part"));
  EXPECT_EQ(s->save(folder_ / "no/such/place").code(), Code::not_found);
  EXPECT_EQ(s->save(folder_.path()).code(), Code::io_error) << "a folder stands there";
  EXPECT_FALSE(std::filesystem::exists(folder_.path() + ".part"));
}

}  // namespace
}  // namespace bough
