// What the files of AttentionPlan share: limits of its numbers, names of its choices, presets by name.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "bough/attention.h"

namespace bough::plan {

inline constexpr int64_t kMaxTokens = int64_t{1} << 31;  // sinks, window, k, keep, dense_below
inline constexpr int64_t kMaxChunk = 1024;
inline constexpr int64_t kMaxKeyBlock = 64;
inline constexpr int64_t kMaxStages = 4;
inline constexpr int64_t kMaxQueryBlock = 64;
inline constexpr int64_t kMaxLayers = 1024;
inline constexpr int64_t kMaxInterval = 65536;  // decode steps
inline constexpr int64_t kMaxTail = 1024;

// ok when low <= value <= high; otherwise invalid_argument "<field> is <value>, must be from <low> to <high>".
Status check_range(std::string_view field, int64_t value, int64_t low, int64_t high);

// Names in the order of the enumerators, so that names[static_cast<size_t>(x)] is the name of x.
std::span<const std::string_view> mode_names();
std::span<const std::string_view> scan_names();
std::span<const std::string_view> positions_names();
std::span<const std::string_view> lists_names();
std::span<const std::string_view> pool_names();
std::span<const std::string_view> representative_names();

template <typename T>
std::string name(std::span<const std::string_view> names, T value) {
  return std::string{names[static_cast<size_t>(value)]};
}

std::optional<AttentionPlan> find_preset(std::string_view name);

// What a JSON plan of this mode takes for the fields that it leaves out: the presets default, hip, streaming and dense.
AttentionPlan base_of(Mode mode);

// "a, b, c"
std::string join(std::span<const std::string_view> names);

}  // namespace bough::plan
