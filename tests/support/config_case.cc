#include "support/config_case.h"

#include <gmock/gmock.h>

namespace bough::test {

ReadConfig read(const GgufBuilder& builder) {
  const std::vector<std::byte> bytes = builder.build();
  const Result<GgufFile> file = parse_gguf(bytes);
  EXPECT_TRUE(file.ok()) << file.status().message();
  const Result<ModelConfig> config = read_config(*file);
  return config.ok() ? ReadConfig{{}, *config} : ReadConfig{config.status(), {}};
}

GgufBuilder tiny(const TinyModel& spec) { return *build_tiny_model(spec, 1); }

void expect_refused(const GgufBuilder& builder, Code code, const std::string& part) {
  const Status status = read(builder).status;
  EXPECT_EQ(code_name(status.code()), code_name(code)) << part;
  EXPECT_THAT(status.message(), testing::HasSubstr(part));
}

}  // namespace bough::test
