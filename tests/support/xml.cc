#include "support/xml.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <sstream>
#include <utility>

#include "base/check.h"
#include "text/utf8.h"

namespace bough::test {
namespace {

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  Result<XmlElement> document() {
    if (!is_utf8(text_)) return wrong("not UTF-8");
    if (eat("<?xml ") && !skip_past("?>")) return wrong("no end of the declaration");
    skip_space();
    BOUGH_ASSIGN_OR_RETURN(XmlElement root, element());
    skip_space();
    if (at_ != text_.size()) return wrong("text after the root element");
    return root;
  }

 private:
  Status wrong(const std::string& what) const { return Status(Code::corrupt, what + " at byte " + std::to_string(at_)); }

  bool eat(std::string_view word) {
    if (text_.substr(at_, word.size()) != word) return false;
    at_ += word.size();
    return true;
  }
  bool skip_past(std::string_view word) {
    const size_t found = text_.find(word, at_);
    if (found == std::string_view::npos) return false;
    at_ = found + word.size();
    return true;
  }
  static bool is_space(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }
  void skip_space() {
    while (at_ < text_.size() && is_space(text_[at_])) ++at_;
  }
  std::string name() {
    const size_t begin = at_;
    while (at_ < text_.size() && (std::isalnum(static_cast<unsigned char>(text_[at_])) != 0 || text_[at_] == '-' || text_[at_] == ':'))
      ++at_;
    return std::string(text_.substr(begin, at_ - begin));
  }

  // Characters up to `end`, which stays; entities resolved.
  Result<std::string> characters(char end) {
    std::string out;
    while (at_ < text_.size() && text_[at_] != end) {
      const char c = text_[at_];
      if (c == '<') return wrong("a '<' that begins nothing");
      if (static_cast<unsigned char>(c) < 0x20 && !is_space(c)) return wrong("a control character");
      if (c != '&') {
        out += c;
        ++at_;
        continue;
      }
      bool known = false;
      for (const auto& [entity, meaning] : {std::pair("&amp;", '&'), {"&lt;", '<'}, {"&gt;", '>'}, {"&quot;", '"'}, {"&#39;", '\''}}) {
        if (known || !eat(entity)) continue;
        out += meaning;
        known = true;
      }
      if (!known) return wrong("an unknown entity");
    }
    return out;
  }

  Status attribute(XmlElement& e) {
    const std::string key = name();
    if (key.empty() || !eat("=\"")) return wrong("no attribute");
    BOUGH_ASSIGN_OR_RETURN(std::string value, characters('"'));
    if (!eat("\"")) return wrong("an attribute without its end");
    if (!e.attributes.emplace(key, std::move(value)).second) return wrong("an attribute twice");
    return {};
  }

  Result<XmlElement> element() {
    XmlElement e;
    if (!eat("<")) return wrong("no element");
    e.name = name();
    if (e.name.empty()) return wrong("an element without a name");
    while (true) {
      const size_t before = at_;
      skip_space();
      if (eat("/>")) return e;
      if (eat(">")) break;
      if (before == at_) return wrong("no blank before an attribute");
      BOUGH_RETURN_IF_ERROR(attribute(e));
    }
    while (true) {
      BOUGH_ASSIGN_OR_RETURN(const std::string text, characters('<'));
      e.text += text;
      if (eat("</")) break;
      BOUGH_ASSIGN_OR_RETURN(XmlElement child, element());
      e.children.push_back(std::move(child));
    }
    if (name() != e.name || !eat(">")) return wrong("an end of another element than " + e.name);
    return e;
  }

  std::string_view text_;
  size_t at_ = 0;
};

void collect(const XmlElement& e, std::string_view element, std::string_view word, std::vector<const XmlElement*>& found) {
  std::istringstream classes(e.attributes.count("class") != 0 ? e.attributes.at("class") : "");
  bool has = word.empty();
  for (std::string c; classes >> c;) has = has || c == word;
  if (has && (element.empty() || e.name == element)) found.push_back(&e);
  for (const XmlElement& child : e.children) collect(child, element, word, found);
}

}  // namespace

std::vector<const XmlElement*> XmlElement::find(std::string_view element, std::string_view word) const {
  std::vector<const XmlElement*> found;
  collect(*this, element, word, found);
  return found;
}

double XmlElement::number(const std::string& attribute) const {
  const auto found = attributes.find(attribute);
  if (found == attributes.end()) {
    ADD_FAILURE() << name << " has no attribute " << attribute;
    return 0;
  }
  char* end = nullptr;
  const double value = std::strtod(found->second.c_str(), &end);
  EXPECT_EQ(*end, '\0') << attribute << " is " << found->second;
  return value;
}

Result<XmlElement> parse_xml(std::string_view text) { return Parser(text).document(); }

}  // namespace bough::test
