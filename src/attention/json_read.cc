#include "attention/json_read.h"

#include <set>

namespace bough::plan {
namespace {

constexpr size_t kMaxNesting = 16;

// Watches the parser for what the library would accept: deep nesting and a key that appears twice in one object.
class Watch {
 public:
  bool operator()(Json::parse_event_t event, const Json& parsed) {
    using Event = Json::parse_event_t;
    if (event == Event::object_start || event == Event::array_start) {
      open_.emplace_back();
      if (open_.size() > kMaxNesting && error_.empty()) error_ = "the attention plan nests deeper than " + std::to_string(kMaxNesting);
    } else if (event == Event::object_end || event == Event::array_end) {
      open_.pop_back();
    } else if (event == Event::key) {
      const auto& key = parsed.get_ref<const std::string&>();
      if (!open_.back().insert(key).second && error_.empty()) error_ = "the key " + quote(key) + " appears twice in one object";
    }
    return true;
  }
  const std::string& error() const { return error_; }

 private:
  std::vector<std::set<std::string>> open_;  // keys seen so far of each open object or array
  std::string error_;
};

}  // namespace

std::string quote(std::string_view text) {
  constexpr size_t longest = 60;
  const std::string shown(text.substr(0, longest));
  return Json(shown).dump(-1, ' ', true, Json::error_handler_t::replace) + (text.size() > longest ? "..." : "");
}

std::string text_of(const Json& value) {
  if (value.is_string()) return quote(value.get_ref<const std::string&>());
  if (value.is_structured()) return std::string("an ") + value.type_name();
  return value.dump();
}

Status check_type(const Json& value, Json::value_t type, const std::string& field) {
  if (value.type() == type) return {};
  return invalid(field + " is " + text_of(value) + ", must be an " + Json(type).type_name());
}

Status parse_strict(std::string_view text, Json& out) {
  Watch watch;
  try {
    out = Json::parse(text, [&watch](int, Json::parse_event_t event, Json& parsed) { return watch(event, parsed); });
  } catch (const Json::parse_error& error) {
    if (!watch.error().empty()) return invalid(watch.error());
    return invalid("the attention plan is not valid JSON at byte " + std::to_string(error.byte));
  }
  if (!watch.error().empty()) return invalid(watch.error());
  return {};
}

Status read_int64(const Json& value, const std::string& field, int64_t low, int64_t high, int64_t* out) {
  const std::string must = ", must be an integer from " + std::to_string(low) + " to " + std::to_string(high);
  if (!value.is_number_integer()) return invalid(field + " is " + text_of(value) + must);
  const bool beyond = value.is_number_unsigned() && value.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX);
  if (beyond || value.get<int64_t>() < low || value.get<int64_t>() > high) return invalid(field + " is " + value.dump() + must);
  *out = value.get<int64_t>();
  return {};
}

Status read_index(const Json& value, const std::string& field, std::span<const std::string_view> names, size_t* out) {
  if (value.is_string()) {
    for (size_t i = 0; i < names.size(); ++i) {
      if (value.get_ref<const std::string&>() == names[i]) {
        *out = i;
        return {};
      }
    }
  }
  return invalid(field + " is " + text_of(value) + ", must be one of the strings " + join(names));
}

Status read_integers(const Json& value, const std::string& field, int64_t low, int64_t high, size_t most, std::vector<int>& out) {
  BOUGH_RETURN_IF_ERROR(check_type(value, Json::value_t::array, field));
  if (value.size() > most) {
    return invalid(field + " has " + std::to_string(value.size()) + " entries, must have at most " + std::to_string(most));
  }
  out.clear();
  for (size_t i = 0; i < value.size(); ++i) {
    int x = 0;
    BOUGH_RETURN_IF_ERROR(read_integer(value[i], field + "[" + std::to_string(i) + "]", low, high, &x));
    out.push_back(x);
  }
  return {};
}

Status unknown_key(const std::string& key, const std::string& prefix, std::span<const std::string_view> known) {
  const std::string where = prefix.empty() ? "the attention plan" : prefix.substr(0, prefix.size() - 1);
  return invalid("unknown key " + quote(key) + " in " + where + ", known are " + join(known));
}

}  // namespace bough::plan
