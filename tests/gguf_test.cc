#include "model/gguf.h"

#include <gmock/gmock.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <random>

#include "ggml.h"
#include "model/config.h"
#include "model/weights.h"
#include "support/tiny_gguf.h"

namespace bough {
namespace {

using Bytes = std::vector<std::byte>;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr size_t kTensorCountAt = 8;
constexpr size_t kKeyCountAt = 16;

Bytes tiny_bytes(const TinyModel& spec = {}) { return build_tiny_model(spec, 1)->build(); }

template <typename T>
void patch(Bytes& bytes, size_t at, T value) {
  ASSERT_LE(at + sizeof(T), bytes.size());
  std::memcpy(bytes.data() + at, &value, sizeof(T));
}

// The place just after the first occurrence of `text`, which is a key or a tensor's name with its length in front.
size_t after(const Bytes& bytes, const std::string& text) {
  const uint64_t length = text.size();
  std::string needle(sizeof(length), '\0');
  std::memcpy(needle.data(), &length, sizeof(length));
  needle += text;
  const auto* begin = reinterpret_cast<const char*>(bytes.data());
  const auto* found = std::search(begin, begin + bytes.size(), needle.begin(), needle.end());
  EXPECT_NE(found, begin + bytes.size()) << text;
  return static_cast<size_t>(found - begin) + needle.size();
}

void expect_error(const Bytes& bytes, Code code, const std::string& part) {
  const Result<GgufFile> file = parse_gguf(bytes);
  ASSERT_FALSE(file.ok()) << part;
  EXPECT_EQ(code_name(file.status().code()), code_name(code));
  EXPECT_THAT(file.status().message(), HasSubstr(part));
}

// Places of the fields of a matrix's entry, relative to the end of its name.
constexpr size_t kDims0 = 4, kDims1 = 12, kType = 20, kOffset = 24;

TEST(Gguf, ReadsAValidFile) {
  const Bytes bytes = tiny_bytes();
  const Result<GgufFile> file = parse_gguf(bytes);
  ASSERT_TRUE(file.ok()) << file.status().message();
  EXPECT_EQ(file->version(), 3u);
  EXPECT_EQ(file->file_bytes(), bytes.size());
  EXPECT_EQ(file->tensors().size(), 2u + 2 * 9);
  const TensorInfo* down = file->find_tensor("blk.1.ffn_down.weight");
  ASSERT_NE(down, nullptr);
  EXPECT_THAT(down->dims, ElementsAre(128, 64, 1, 1));
  EXPECT_EQ(down->bytes, 128u * 64 * 4);
  EXPECT_EQ(shape_text(*down), "[128, 64]");
  EXPECT_EQ(file->data(*down).size(), down->bytes);
  EXPECT_EQ(file->find_tensor("blk.2.ffn_down.weight"), nullptr);
}

TEST(Gguf, ReadsVersion2) {
  Bytes bytes = tiny_bytes();
  patch(bytes, 4, uint32_t{2});
  EXPECT_TRUE(parse_gguf(bytes).ok());
}

TEST(Gguf, GettersCheckTypes) {
  GgufBuilder builder;
  builder.set("u32", uint32_t{7});
  builder.set("minus", int32_t{-3});
  builder.set("big", uint64_t{1} << 63);
  builder.set("f32", 0.5f);
  builder.set("yes", true);
  builder.set("text", "caf\xc3\xa9");
  builder.set("strings", std::vector<std::string>{"a", "", "bc"});
  builder.set("ints", std::vector<int32_t>{-1, 2});
  builder.set("floats", std::vector<float>{0.25f, 4});
  const Bytes bytes = builder.build();
  const Result<GgufFile> file = parse_gguf(bytes);
  ASSERT_TRUE(file.ok()) << file.status().message();
  EXPECT_EQ(*file->get_u64("u32"), 7u);
  EXPECT_EQ(*file->get_u64("big"), uint64_t{1} << 63);
  EXPECT_EQ(*file->get_f64("minus"), -3.0);
  EXPECT_EQ(*file->get_f64("f32"), 0.5);
  EXPECT_TRUE(*file->get_bool("yes"));
  EXPECT_EQ(*file->get_string("text"), "caf\xc3\xa9");
  EXPECT_THAT(*file->get_strings("strings"), ElementsAre("a", "", "bc"));
  EXPECT_THAT(*file->get_integers("ints"), ElementsAre(-1, 2));
  EXPECT_THAT(*file->get_numbers("floats"), ElementsAre(0.25, 4.0));
  EXPECT_THAT(file->get_u64("minus").status().message(), HasSubstr("'minus' is -3"));
  EXPECT_THAT(file->get_u64("f32").status().message(), HasSubstr("is f32, it must be an integer"));
  EXPECT_THAT(file->get_u64("ints").status().message(), HasSubstr("an array of 2 i32"));
  EXPECT_THAT(file->get_string("u32").status().message(), HasSubstr("must be a string"));
  EXPECT_THAT(file->get_strings("ints").status().message(), HasSubstr("must be an array of strings"));
  EXPECT_THAT(file->get_integers("floats").status().message(), HasSubstr("must be an array of integers"));
  EXPECT_THAT(file->get_bool("u32").status().message(), HasSubstr("must be a bool"));
  EXPECT_EQ(file->get_u64("none").status().code(), Code::not_found);
  EXPECT_THAT(file->get_u64("none").status().message(), HasSubstr("'none' is missing"));
}

TEST(Gguf, MovedFileKeepsItsViews) {
  const std::string path = testing::TempDir() + "/moved.gguf";
  ASSERT_TRUE(write_tiny_gguf(path, {}, 1).ok());
  Result<GgufFile> opened = open_gguf(path);
  ASSERT_TRUE(opened.ok()) << opened.status().message();
  const std::string_view name = *opened->get_string("general.name");
  const GgufFile moved = std::move(*opened);
  EXPECT_EQ(name, "tiny");
  EXPECT_EQ(moved.get_string("general.name")->data(), name.data());
  EXPECT_NE(moved.find_tensor("token_embd.weight"), nullptr);
}

TEST(GgufHostile, FilesThatAreNone) {
  const std::string folder = testing::TempDir();
  EXPECT_EQ(open_gguf(folder).status().code(), Code::io_error);
  EXPECT_THAT(open_gguf(folder).status().message(), HasSubstr("is a directory"));
  EXPECT_EQ(open_gguf(folder + "/none.gguf").status().code(), Code::not_found);
  EXPECT_THAT(open_gguf(folder + "/none.gguf").status().message(), HasSubstr("none.gguf"));
  EXPECT_EQ(open_gguf(std::string("a\0b", 3)).status().code(), Code::invalid_argument);
  const std::string fifo = folder + "/fifo.gguf";
  std::filesystem::remove(fifo);
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  EXPECT_THAT(open_gguf(fifo).status().message(), HasSubstr("is not a regular file"));
  const std::string empty = folder + "/empty.gguf";
  ASSERT_TRUE(write_bytes(empty, {}).ok());
  EXPECT_EQ(open_gguf(empty).status().code(), Code::corrupt);
  EXPECT_THAT(open_gguf(empty).status().message(), HasSubstr("empty.gguf' cannot be used: the file is empty"));
}

TEST(GgufHostile, MagicAndVersion) {
  Bytes bytes = tiny_bytes();
  patch(bytes, 0, uint32_t{0x46'55'47'00});
  expect_error(bytes, Code::corrupt, "starts with '\\x00GUF'");
  bytes = tiny_bytes();
  patch(bytes, 4, uint32_t{4});
  expect_error(bytes, Code::unsupported, "version 4");
  patch(bytes, 4, uint32_t{1});
  expect_error(bytes, Code::unsupported, "version 1");
  patch(bytes, 4, uint32_t{0x03'00'00'00});
  expect_error(bytes, Code::unsupported, "big-endian (version 3)");
}

TEST(GgufHostile, Counts) {
  for (const uint64_t count : {uint64_t{65'537}, uint64_t{1} << 40, ~uint64_t{0}}) {
    Bytes bytes = tiny_bytes();
    patch(bytes, kTensorCountAt, count);
    expect_error(bytes, Code::corrupt, "claims " + std::to_string(count) + " tensors");
    bytes = tiny_bytes();
    patch(bytes, kKeyCountAt, count);
    expect_error(bytes, Code::corrupt, "claims " + std::to_string(count) + " keys");
  }
  Bytes bytes = tiny_bytes();
  bytes.resize(4096);
  patch(bytes, kKeyCountAt, uint64_t{60'000});
  expect_error(bytes, Code::corrupt, "more than its 4096 bytes can hold");
}

// Every prefix of the keys and tensor infos, and many of the data, must be refused.
TEST(GgufHostile, Truncated) {
  const Bytes whole = tiny_bytes();
  const uint64_t data_start = parse_gguf(whole)->tensors().front().offset;
  for (size_t n = 0; n < whole.size(); n += n < data_start ? 1 : 4099) {
    const Bytes bytes(whole.begin(), whole.begin() + static_cast<ptrdiff_t>(n));
    const Result<GgufFile> file = parse_gguf(bytes);
    ASSERT_FALSE(file.ok()) << n;
    ASSERT_EQ(file.status().code(), Code::corrupt) << n;
  }
  Bytes bytes = whole;
  bytes.resize(whole.size() - 33);
  expect_error(bytes, Code::corrupt, "'output_norm.weight' of 256 bytes reaches past the end");
}

TEST(GgufHostile, Strings) {
  Bytes bytes = tiny_bytes();
  patch(bytes, 24, uint64_t{65'536});
  expect_error(bytes, Code::corrupt, "key 0 is 65536 bytes long, the limit is 65535");
  patch(bytes, 24, uint64_t{0});
  expect_error(bytes, Code::corrupt, "key 0 is empty");
  bytes = tiny_bytes();
  bytes[24 + 8 + 3] = std::byte{0};
  expect_error(bytes, Code::corrupt, "'gen\\x00ral.architecture', holds a NUL");
  bytes = tiny_bytes();
  patch(bytes, after(bytes, "general.architecture") + 4, (uint64_t{16} << 20) + 1);
  expect_error(bytes, Code::corrupt, "'general.architecture' is 16777217 bytes long");
  patch(bytes, after(bytes, "general.architecture") + 4, uint64_t{16} << 20);
  expect_error(bytes, Code::corrupt, "the file ends inside the value of the key 'general.architecture'");
}

TEST(GgufHostile, ValueTypesAndArrays) {
  const Bytes whole = tiny_bytes();
  const size_t type_at = after(whole, "tokenizer.ggml.tokens");
  Bytes bytes = whole;
  patch(bytes, type_at, uint32_t{13});
  expect_error(bytes, Code::corrupt, "'tokenizer.ggml.tokens' has the type 13");
  bytes = whole;
  patch(bytes, type_at + 4, uint32_t{9});
  expect_error(bytes, Code::corrupt, "'tokenizer.ggml.tokens' is an array of arrays");
  for (const uint64_t count : {~uint64_t{0}, (~uint64_t{0}) / 8 + 1, uint64_t{1} << 32}) {
    bytes = whole;
    patch(bytes, type_at + 8, count);
    expect_error(bytes, Code::corrupt, "claims " + std::to_string(count) + " values of type string");
  }
  bytes = whole;
  bytes[after(whole, "tokenizer.ggml.add_bos_token") + 4] = std::byte{2};
  expect_error(bytes, Code::corrupt, "'tokenizer.ggml.add_bos_token' holds the bool 2");
}

TEST(GgufHostile, DuplicatesOfKeysAndTensors) {
  Bytes bytes = tiny_bytes();
  const size_t second = after(bytes, "blk.1.attn_q.weight") - 19;
  std::memcpy(bytes.data() + second, "blk.0.attn_q.weight", 19);
  expect_error(bytes, Code::corrupt, "the tensor 'blk.0.attn_q.weight' occurs twice");
  bytes = tiny_bytes();
  const size_t key = after(bytes, "tokenizer.ggml.eos_token_id") - 27;
  std::memcpy(bytes.data() + key, "tokenizer.ggml.bos_token_id", 27);
  expect_error(bytes, Code::corrupt, "the key 'tokenizer.ggml.bos_token_id' occurs twice");
}

TEST(GgufHostile, Alignment) {
  for (const uint32_t alignment : {0u, 4u, 48u, 1u << 21}) {
    GgufBuilder builder = *build_tiny_model({}, 1);
    builder.set("general.alignment", alignment);
    expect_error(builder.build(), Code::corrupt, "general.alignment is " + std::to_string(alignment));
  }
  GgufBuilder builder = *build_tiny_model({}, 1);
  builder.set("general.alignment", std::vector<int32_t>{32});
  expect_error(builder.build(), Code::corrupt, "'general.alignment' is an array of 1 i32");
  Bytes bytes = tiny_bytes();
  patch(bytes, after(bytes, "blk.0.attn_q.weight") + kOffset, uint64_t{16});
  expect_error(bytes, Code::corrupt, "'blk.0.attn_q.weight' starts at 16, which is no multiple of the alignment 32");
}

TEST(GgufHostile, Shapes) {
  const Bytes whole = tiny_bytes();
  const size_t at = after(whole, "blk.0.attn_q.weight");
  const auto with_dims = [&](int64_t d0, int64_t d1) {
    Bytes bytes = whole;
    patch(bytes, at + kDims0, d0);
    patch(bytes, at + kDims1, d1);
    return bytes;
  };
  expect_error(with_dims(0, 64), Code::corrupt, "'blk.0.attn_q.weight' has 0 as dimension 0");
  expect_error(with_dims(64, -1), Code::corrupt, "'blk.0.attn_q.weight' has -1 as dimension 1");
  expect_error(with_dims(int64_t{1} << 40, int64_t{1} << 40), Code::corrupt, "more values than 64 bits can count");
  expect_error(with_dims(int64_t{1} << 31, int64_t{1} << 31), Code::corrupt, "more values than 64 bits can count");
  expect_error(with_dims(int64_t{1} << 30, int64_t{1} << 20), Code::corrupt, "reaches past the end of the file");
  for (const uint32_t n : {0u, 5u, ~0u}) {
    Bytes bytes = whole;
    patch(bytes, at, n);
    expect_error(bytes, Code::corrupt, "'blk.0.attn_q.weight' has " + std::to_string(n) + " dimensions");
  }
}

TEST(GgufHostile, ElementTypes) {
  const Bytes whole = tiny_bytes();
  const size_t at = after(whole, "blk.0.attn_q.weight");
  for (const uint32_t type : {4u, 31u, static_cast<uint32_t>(GGML_TYPE_COUNT), ~0u}) {
    Bytes bytes = whole;
    patch(bytes, at + kType, type);
    expect_error(bytes, Code::unsupported, "'blk.0.attn_q.weight' has the element type " + std::to_string(type));
  }
  Bytes bytes = whole;
  patch(bytes, at + kType, static_cast<uint32_t>(GGML_TYPE_Q4_K));
  expect_error(bytes, Code::corrupt, "has rows of 64 values, q4_K needs a multiple of 256");
}

TEST(GgufHostile, OffsetsAndOverlap) {
  const Bytes whole = tiny_bytes();
  const size_t at = after(whole, "blk.0.attn_q.weight") + kOffset;
  for (const uint64_t offset : {uint64_t{whole.size() / 32 * 32}, uint64_t{1} << 62, ~uint64_t{31}}) {
    Bytes bytes = whole;
    patch(bytes, at, offset);
    expect_error(bytes, Code::corrupt, "'blk.0.attn_q.weight' of 16384 bytes reaches past the end");
  }
  Bytes bytes = whole;
  patch(bytes, at, uint64_t{32});
  expect_error(bytes, Code::corrupt, "the tensors 'token_embd.weight' and 'blk.0.attn_q.weight' overlap");
}

TEST(GgufHostile, TensorNames) {
  Bytes bytes = tiny_bytes();
  patch(bytes, after(bytes, "token_embd.weight") - 17 - 8, uint64_t{64});
  expect_error(bytes, Code::corrupt, "the name of tensor 0 is 64 bytes long, the limit is 63");
}

// Whatever the bytes, the three calls return; what they accept can be read to the end.
TEST(GgufHostile, RandomDamage) {
  const TinyModel spec{.layers = 1, .d_model = 32, .heads = 2, .kv_heads = 1, .ffn = 32, .rope_factors = true};
  const Bytes whole = tiny_bytes(spec);
  const uint64_t data_start = parse_gguf(whole)->tensors().front().offset;
  std::mt19937_64 random(42);
  int accepted = 0;
  for (int i = 0; i < 2000; ++i) {
    Bytes bytes = whole;
    const uint64_t flips = 1 + random() % 8;
    for (uint64_t f = 0; f < flips; ++f) bytes[random() % (f % 2 == 0 ? data_start : bytes.size())] ^= std::byte(1u << random() % 8);
    if (i % 5 == 0) bytes.resize(random() % bytes.size());
    bytes.shrink_to_fit();
    const Result<GgufFile> file = parse_gguf(bytes);
    if (!file.ok()) continue;
    const Result<ModelConfig> config = read_config(*file);
    if (!config.ok()) continue;
    const Result<Weights> weights = bind_weights(*file, *config);
    if (!weights.ok()) continue;
    ++accepted;
    (void)check_finite(*weights);
  }
  EXPECT_GT(accepted, 0);
  EXPECT_LT(accepted, 2000);
}

TEST(InQuotes, EscapesAndCuts) {
  EXPECT_EQ(in_quotes("a\n\x1b"), "'a\\x0a\\x1b'");
  EXPECT_EQ(in_quotes(std::string(100, 'x')), "'" + std::string(80, 'x') + "...'");
}

}  // namespace
}  // namespace bough
