#include "kv/prefix_tree.h"

#include <algorithm>
#include <queue>
#include <set>
#include <string>

namespace bough {

PrefixTree::Key PrefixTree::key_of(uint64_t parent, std::span<const TokenId> text, size_t page) {
  Key key{parent, {}};
  const auto tokens = text.subspan(page * kPageTokens, kPageTokens);
  std::copy(tokens.begin(), tokens.end(), key.second.begin());
  return key;
}

std::vector<std::byte*> PrefixTree::find(std::span<const TokenId> text, size_t skip) {
  std::vector<std::byte*> pages;
  uint64_t parent = 0;
  ++clock_;
  for (size_t page = 0; page < text.size() / kPageTokens; ++page) {
    const auto node = nodes_.find(key_of(parent, text, page));
    if (node == nodes_.end()) break;
    node->second.used = clock_;
    parent = node->second.id;
    if (page >= skip) pages.push_back(node->second.page);
  }
  return pages;
}

void PrefixTree::insert(std::span<const TokenId> text, PageList& pages) {
  if (budget_ <= 0) return;
  auto parent = nodes_.end();
  ++clock_;
  for (size_t page = 0; page < text.size() / kPageTokens; ++page) {
    const uint64_t parent_id = parent == nodes_.end() ? 0 : parent->second.id;
    const auto [node, is_new] = nodes_.try_emplace(key_of(parent_id, text, page));
    if (is_new) {
      node->second.id = next_id_++;
      node->second.page = pages.pages()[page];
      node->second.parent = parent;
      pool_->keep(node->second.page);
      if (parent != nodes_.end()) ++parent->second.children;
    } else if (node->second.page != pages.pages()[page]) {
      pages.replace(page, node->second.page);
    }
    node->second.used = clock_;
    parent = node;
  }
}

void PrefixTree::replace(std::span<const TokenId> text, size_t first, std::span<std::byte* const> pages) {
  uint64_t parent = 0;
  for (size_t page = 0; page < first + pages.size(); ++page) {
    const auto node = nodes_.find(key_of(parent, text, page));
    if (node == nodes_.end()) return;
    parent = node->second.id;
    if (page < first || node->second.page == pages[page - first]) continue;
    pool_->keep(pages[page - first]);
    pool_->drop(node->second.page);
    node->second.page = pages[page - first];
  }
}

void PrefixTree::erase(Nodes::iterator node) {
  pool_->drop(node->second.page);
  if (node->second.parent != nodes_.end()) --node->second.parent->second.children;
  nodes_.erase(node);
}

void PrefixTree::trim_to(int64_t bytes) {
  int64_t over = unused_bytes() - bytes;
  if (over <= 0) return;
  const auto later = [](const Nodes::iterator& a, const Nodes::iterator& b) { return a->second.used > b->second.used; };
  std::priority_queue<Nodes::iterator, std::vector<Nodes::iterator>, decltype(later)> leaves(later);
  for (auto node = nodes_.begin(); node != nodes_.end(); ++node) {
    if (unused_leaf(node->second)) leaves.push(node);
  }
  for (; over > 0 && !leaves.empty(); over -= static_cast<int64_t>(pool_->shape().page_bytes())) {
    const auto node = leaves.top();
    leaves.pop();
    const auto parent = node->second.parent;
    erase(node);
    if (parent != nodes_.end() && unused_leaf(parent->second)) leaves.push(parent);
  }
}

void PrefixTree::clear() {
  for (const auto& [key, node] : nodes_) pool_->drop(node.page);
  nodes_.clear();
}

Status PrefixTree::check_integrity() const {
  const auto broken = [](const std::string& what) { return Status(Code::internal, "the prefix tree is broken: " + what); };
  std::set<uint64_t> ids;
  std::set<const std::byte*> pages;
  std::map<uint64_t, int64_t> children;
  int64_t unused = 0;
  for (const auto& [key, node] : nodes_) {
    const std::string name = "node " + std::to_string(node.id);
    if (!ids.insert(node.id).second) return broken(name + " is there twice");
    if (!pages.insert(node.page).second) return broken(name + " holds a page that another node holds");
    if (pool_->references(node.page) < 1) return broken(name + " holds a page that was given back");
    const uint64_t parent = node.parent == nodes_.end() ? 0 : node.parent->second.id;
    if (parent != key.first) return broken(name + " hangs on node " + std::to_string(parent) + ", not " + std::to_string(key.first));
    ++children[parent];
    unused += pool_->references(node.page) == 1 ? 1 : 0;
  }
  if (unused != pool_->pages_only_kept()) {
    return broken(std::to_string(unused) + " of its pages are unused and " + std::to_string(pool_->pages_only_kept()) + " counted");
  }
  for (const auto& [key, node] : nodes_) {
    if (key.first != 0 && ids.count(key.first) == 0) return broken("node " + std::to_string(node.id) + " has lost its parent");
    const int64_t held = children.count(node.id) == 0 ? 0 : children[node.id];
    if (node.children != held) {
      return broken("node " + std::to_string(node.id) + " counts " + std::to_string(node.children) + " children and has " +
                    std::to_string(held));
    }
  }
  return {};
}

}  // namespace bough
