// Reads XML for tests: elements, attributes and text, refusing what is not well-formed.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "bough/status.h"

namespace bough::test {

struct XmlElement {
  std::string name;
  std::map<std::string, std::string> attributes;
  std::string text;  // its own, entities resolved
  std::vector<XmlElement> children;

  // This element and all below it of this name whose attribute class holds the word, in document order; "" stands for any.
  std::vector<const XmlElement*> find(std::string_view element, std::string_view word = "") const;
  // Fails the test where the attribute is not there or no number.
  double number(const std::string& attribute) const;
};

// The root element. No comments, CDATA or document types. Errors: corrupt, with the byte.
Result<XmlElement> parse_xml(std::string_view text);

}  // namespace bough::test
