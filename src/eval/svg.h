// Svg: a drawing as an SVG file. Marks have one of a few classes, whose colours are in the file's own style sheet, for light and for dark
// viewers; it draws its own background. No scripts, nothing from outside; texts are escaped.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace bough::eval {

struct Point {
  double x = 0;
  double y = 0;
};

enum class Anchor : uint8_t { start, middle, end };

// `text` as XML holds it: & < > " ' as entities; what is not UTF-8 or no character of XML becomes U+FFFD.
std::string xml_text(std::string_view text);

class Svg {
 public:
  static constexpr int kSeries = 8;  // classes s0 to s7, for things of equal rank

  // Size in pixels; `title` is what a viewer calls the drawing.
  Svg(double width, double height, std::string_view title);

  // classes: of the style sheet, see svg.cc. hover: shown when the mouse rests on the mark, or empty.
  void rect(Point at, double width, double height, std::string_view classes, std::string_view hover = {});
  void line(Point from, Point to, std::string_view classes);
  void polyline(std::span<const Point> points, std::string_view classes);
  void circle(Point center, double radius, std::string_view classes, std::string_view hover = {});
  void text(Point at, std::string_view text, std::string_view classes, Anchor anchor = Anchor::start);
  // A cell of a heat map with its value in it: 0 is dark, 1 is light; the same in every viewer.
  void heat(Point at, double width, double height, double value, std::string_view label, std::string_view hover);

  // The whole file.
  std::string finish() const { return out_ + "</svg>\n"; }

 private:
  void number(const char* name, double value);
  void open(const char* element, std::string_view classes);
  void close(const char* element, std::string_view hover);

  std::string out_;
};

// A number with at most `digits` digits after the point and no zeros at its end; the same in every locale.
std::string decimal(double value, int digits);

// A linear way from values to pixels.
struct Scale {
  double from = 0;  // value at pixel `begin`
  double to = 1;    // value at pixel `end`
  double begin = 0;
  double end = 1;

  double at(double value) const { return to == from ? begin : begin + (value - from) * (end - begin) / (to - from); }
};

// The least of 1, 2, 5 times a power of ten by which [0, span] has at most `most` steps. REQUIRES: span > 0, most > 0.
double tick_step(double span, int most);

}  // namespace bough::eval
