// AttentionPlan as one line of JSON. Written as text, since every name and number in it is plain: the JSON library's destructors
// allocate and end the process when that fails.
#include <concepts>
#include <string>
#include <string_view>
#include <vector>

#include "attention/plan_parts.h"
#include "bough/attention.h"

namespace bough {
namespace {

using plan::name;

// One object or array as it grows. Keys and words hold nothing that JSON escapes.
class JsonText {
 public:
  explicit JsonText(char open) : text_(1, open) {}

  void key(std::string_view key) {
    comma();
    text_ += '"';
    text_ += key;
    text_ += "\":";
    after_key_ = true;
  }
  void raw(std::string_view value) {
    comma();
    text_ += value;
  }
  void word(std::string_view value) {
    comma();
    text_ += '"';
    text_ += value;
    text_ += '"';
  }
  void number(int64_t value) { raw(std::to_string(value)); }
  template <std::integral T>
  void field(std::string_view name, T value) {
    key(name);
    number(value);
  }
  void field(std::string_view name, std::string_view value) {
    key(name);
    word(value);
  }
  void field(std::string_view name, const JsonText& value) {
    key(name);
    raw(value.str());
  }
  std::string str() const { return text_ + (text_.front() == '{' ? '}' : ']'); }

 private:
  void comma() {
    if (!after_key_ && text_.size() > 1) text_ += ',';
    after_key_ = false;
  }

  std::string text_;
  bool after_key_ = false;
};

JsonText numbers(const std::vector<int>& values) {
  JsonText list('[');
  for (const int value : values) list.number(value);
  return list;
}

JsonText stages_text(const std::vector<StagePlan>& stages) {
  JsonText list('[');
  for (size_t i = 0; i < stages.size(); ++i) {
    JsonText stage('{');
    stage.field("chunk", stages[i].chunk);
    if (i > 0) stage.field("keep", stages[i].keep);
    stage.field("query_block", stages[i].query_block);
    stage.field("query_stride", stages[i].query_stride);
    stage.field("rounds", stages[i].rounds);
    stage.field("piece", stages[i].piece);
    if (i > 0) stage.field("row_piece", stages[i].row_piece);
    if (i > 0) stage.field("row_keep", stages[i].row_keep);
    list.raw(stage.str());
  }
  return list;
}

JsonText tree_text(const TreePlan& t) {
  JsonText tree('{');
  tree.field("k", t.k);
  tree.field("query_block", t.query_block);
  tree.field("query_stride", t.query_stride);
  tree.field("key_block", t.key_block);
  tree.field("key_stride", t.key_stride);
  tree.field("rep", name(plan::representative_names(), t.rep));
  tree.field("refresh", t.refresh);
  return tree;
}

JsonText first_text(const FirstLayers& f) {
  JsonText first('{');
  first.field("layers", f.layers);
  first.field("k", f.k);
  first.field("scan", name(plan::scan_names(), f.scan));
  return first;
}

JsonText override_text(const LayerOverride& o) {
  JsonText layer('{');
  layer.field("layers", numbers(o.layers));
  if (o.mode) layer.field("mode", name(plan::mode_names(), *o.mode));
  if (o.sinks) layer.field("sinks", *o.sinks);
  if (o.window) layer.field("window", *o.window);
  if (o.stages) layer.field("stages", stages_text(*o.stages));
  if (o.k) layer.field("k", *o.k);
  if (o.row_k) layer.field("row_k", *o.row_k);
  if (o.tree) layer.field("tree", tree_text(*o.tree));
  if (o.scan) layer.field("scan", name(plan::scan_names(), *o.scan));
  if (o.positions) layer.field("positions", name(plan::positions_names(), *o.positions));
  return layer;
}

// A field that may be absent.
void optional_field(JsonText& object, std::string_view name, const std::string& value) {
  object.key(name);
  object.raw(value);
}

}  // namespace

std::string plan_json(const AttentionPlan& p) {
  JsonText layers('[');
  for (const LayerOverride& o : p.layers) layers.raw(override_text(o).str());
  JsonText object('{');
  object.field("mode", name(plan::mode_names(), p.mode));
  object.field("sinks", p.sinks);
  object.field("window", p.window);
  object.field("stages", stages_text(p.stages));
  object.field("k", p.k);
  object.field("row_k", p.row_k);
  optional_field(object, "tree", p.tree ? tree_text(*p.tree).str() : "null");
  optional_field(object, "first", p.first ? first_text(*p.first).str() : "null");
  object.field("scan", name(plan::scan_names(), p.scan));
  object.field("positions", name(plan::positions_names(), p.positions));
  object.field("lists", name(plan::lists_names(), p.lists));
  object.field("pool", name(plan::pool_names(), p.pool));
  object.field("refresh", numbers(p.refresh));
  object.field("tail", p.tail);
  object.field("dense_below", p.dense_below);
  object.field("layers", layers);
  return object.str();
}

}  // namespace bough
