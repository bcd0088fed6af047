// Numbers as people read them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace bough::cli {

std::string fixed(double value, int digits);
std::string grouped(int64_t value);               // 131072 -> "131,072"
std::string byte_text(double bytes);              // decimal units: "98.1 MB"
std::string duration_text(double seconds);        // "4.2 s" below 10, "42 s" below 60, then "5:24", then "1:05:24"
std::string rate_text(double tokens_per_second);  // "254", below 100 with one digit after the point
std::string joined(const std::vector<std::string>& parts, const std::string& separator);

}  // namespace bough::cli
