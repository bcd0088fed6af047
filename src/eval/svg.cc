#include "eval/svg.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdint>

#include "text/utf8.h"

namespace bough::eval {
namespace {

// Classes: page (background), frame, grid, text, small, title, faint; sinks, selected, window, missed, stage (marks of attention);
// s0..s7 with line, dashed, dotted, dot; cell.
struct Colour {
  const char* selector;
  const char* property;
  const char* light;
  const char* dark;
};
constexpr Colour colours[] = {
    {"text", "fill", "#1b1f24", "#e8ecf0"},      {".faint", "fill", "#5a6470", "#9aa5b1"},   {".page", "fill", "#ffffff", "#14181d"},
    {".frame", "stroke", "#5a6470", "#9aa5b1"},  {".grid", "stroke", "#d9dee4", "#323a44"},  {".sinks", "fill", "#7a5195", "#b58ad1"},
    {".selected", "fill", "#1f77b4", "#5aa9e6"}, {".window", "fill", "#2a9d5c", "#5fd08f"},  {".missed", "fill", "#d1495b", "#ff7b8b"},
    {".stage", "fill", "#8fb8de", "#3d6a96"},    {".dot", "fill", "#ffffff", "#14181d"},     {".s0", "stroke", "#1f77b4", "#5aa9e6"},
    {".s1", "stroke", "#d1495b", "#ff7b8b"},     {".s2", "stroke", "#2a9d5c", "#5fd08f"},    {".s3", "stroke", "#c77d00", "#f2b04a"},
    {".s4", "stroke", "#7a5195", "#b58ad1"},     {".s5", "stroke", "#008b8b", "#4fd0d0"},    {".s6", "stroke", "#8c564b", "#c99a8c"},
    {".s7", "stroke", "#5a6470", "#9aa5b1"},     {".on-dark", "fill", "#ffffff", "#ffffff"}, {".on-light", "fill", "#101418", "#101418"},
};

// Beside marks of attention and series s0 to s7: page (the background), frame, grid, line, dashed, dotted, dot, cell, title, small, faint.
constexpr std::string_view shapes =
    "text{font-family:system-ui,sans-serif;font-size:12px}.title{font-size:16px;font-weight:600}.small{font-size:11px}\n"
    ".frame,.grid,.line,.dashed,.dotted{fill:none}.line,.dot{stroke-width:2}.dashed{stroke-width:1.5;stroke-dasharray:6 4}"
    ".dotted{stroke-width:1.5;stroke-dasharray:1.5 4}\n";

// Plain rules, since not every viewer knows variables; one that knows no colour schemes draws the light colours on the light page.
std::string style() {
  std::string light, dark;
  for (const Colour& c : colours) {
    const std::string rule = std::string(c.selector) + "{" + c.property + ":";
    light += rule + c.light + "}";
    dark += rule + c.dark + "}";
  }
  return "<style>\n" + std::string(shapes) + light + "\n@media (prefers-color-scheme:dark){" + dark + "}\n</style>\n";
}

// From dark violet over blue and green to pale yellow: brightness rises all the way, so that it reads without colours too.
constexpr std::array<std::array<double, 3>, 5> heat_colours = {
    {{48, 18, 82}, {52, 80, 150}, {36, 140, 140}, {110, 195, 100}, {250, 235, 120}}};

std::array<int, 3> heat_colour(double value) {
  const double at = std::clamp(std::isfinite(value) ? value : 0, 0.0, 1.0) * (heat_colours.size() - 1);
  const size_t low = std::min(static_cast<size_t>(at), heat_colours.size() - 2);
  const double part = at - static_cast<double>(low);
  std::array<int, 3> colour{};
  for (size_t i = 0; i < colour.size(); ++i) {
    colour[i] = static_cast<int>(std::lround(heat_colours[low][i] * (1 - part) + heat_colours[low + 1][i] * part));
  }
  return colour;
}

bool is_xml_char(uint32_t c) { return c == '\t' || c == '\n' || c == '\r' || (c >= 0x20 && c != 0xFFFE && c != 0xFFFF); }

}  // namespace

std::string xml_text(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    const Utf8Char c = first_char(text);
    if (c.state != Utf8State::complete || !is_xml_char(c.code_point)) {
      out += kReplacement;
    } else if (c.code_point == '&') {
      out += "&amp;";
    } else if (c.code_point == '<') {
      out += "&lt;";
    } else if (c.code_point == '>') {
      out += "&gt;";
    } else if (c.code_point == '"') {
      out += "&quot;";
    } else if (c.code_point == '\'') {
      out += "&#39;";
    } else {
      out += text.substr(0, c.bytes);
    }
    text.remove_prefix(c.bytes);
  }
  return out;
}

std::string decimal(double value, int digits) {
  if (!std::isfinite(value)) return "0";
  char text[400];
  const std::to_chars_result made = std::to_chars(text, text + sizeof text, value, std::chars_format::fixed, digits);
  std::string out(text, made.ptr);
  if (out.find('.') != std::string::npos) {
    while (out.back() == '0') out.pop_back();
    if (out.back() == '.') out.pop_back();
  }
  return out == "-0" ? "0" : out;
}

double tick_step(double span, int most) {
  double step = std::pow(10.0, std::floor(std::log10(span / most)));
  for (const double factor : {2.0, 2.5, 2.0}) {
    if (span / step <= most) break;
    step *= factor;
  }
  return step;
}

Svg::Svg(double width, double height, std::string_view title) {
  const std::string w = decimal(width, 2), h = decimal(height, 2);
  out_ = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"" + w + "\" height=\"" + h +
         "\" viewBox=\"0 0 " + w + " " + h + "\">\n<title>" + xml_text(title) + "</title>\n";
  out_ += style();
  rect({0, 0}, width, height, "page");
}

void Svg::number(const char* name, double value) { out_ += std::string(" ") + name + "=\"" + decimal(value, 2) + "\""; }

void Svg::open(const char* element, std::string_view classes) {
  out_ += std::string("<") + element;
  if (!classes.empty()) out_ += " class=\"" + xml_text(classes) + "\"";
}

void Svg::close(const char* element, std::string_view hover) {
  if (hover.empty()) {
    out_ += "/>\n";
  } else {
    out_ += "><title>" + xml_text(hover) + "</title></" + element + ">\n";
  }
}

void Svg::rect(Point at, double width, double height, std::string_view classes, std::string_view hover) {
  open("rect", classes);
  number("x", at.x);
  number("y", at.y);
  number("width", width);
  number("height", height);
  close("rect", hover);
}

void Svg::line(Point from, Point to, std::string_view classes) {
  open("line", classes);
  number("x1", from.x);
  number("y1", from.y);
  number("x2", to.x);
  number("y2", to.y);
  close("line", {});
}

void Svg::polyline(std::span<const Point> points, std::string_view classes) {
  open("polyline", classes);
  std::string list;
  for (const Point& p : points) list += (list.empty() ? "" : " ") + decimal(p.x, 2) + "," + decimal(p.y, 2);
  out_ += " points=\"" + list + "\"";
  close("polyline", {});
}

void Svg::circle(Point center, double radius, std::string_view classes, std::string_view hover) {
  open("circle", classes);
  number("cx", center.x);
  number("cy", center.y);
  number("r", radius);
  close("circle", hover);
}

void Svg::text(Point at, std::string_view text, std::string_view classes, Anchor anchor) {
  open("text", classes);
  number("x", at.x);
  number("y", at.y);
  if (anchor != Anchor::start) out_ += anchor == Anchor::middle ? " text-anchor=\"middle\"" : " text-anchor=\"end\"";
  out_ += ">" + xml_text(text) + "</text>\n";
}

void Svg::heat(Point at, double width, double height, double value, std::string_view label, std::string_view hover) {
  const std::array<int, 3> colour = heat_colour(value);
  open("rect", "cell");
  number("x", at.x);
  number("y", at.y);
  number("width", width);
  number("height", height);
  out_ += " fill=\"rgb(" + std::to_string(colour[0]) + "," + std::to_string(colour[1]) + "," + std::to_string(colour[2]) + ")\"";
  close("rect", hover);
  if (label.empty()) return;
  const bool dark = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] < 140;
  text({at.x + width / 2, at.y + height / 2 + 4}, label, dark ? "small on-dark" : "small on-light", Anchor::middle);
}

}  // namespace bough::eval
