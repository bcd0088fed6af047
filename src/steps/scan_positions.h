// Where the rows of a query block and the keys of its candidates stand while a search scores them.
//
// Lt is the trained context, W the search's window, N the number of candidates; p a row's own position, i a key's.
//   relative        query W (left candidate of a pair: W + 1)   keys 0
//   chunk-indexed   query min(r0, N + W)                        key of candidate j: j. Indices are divided where N + W reaches Lt
//   infllm          query W                                     keys 0
//   dynamic-extend  query p                                     i from r1 - Lt/4 on; before it squeezed evenly into Lt
//   self-extend     query p                                     i from r1 - Lt on; before it ceil(r1 / Lt) neighbours share one
// The last two count from r1 - Lt, so that every position is in [0, Lt); only differences matter to a rotation.
#pragma once

#include <algorithm>
#include <cstdint>

#include "base/host_device.h"
#include "bough/attention.h"
#include "steps/batch.h"

namespace bough {

// By how much candidate indices are divided, and the position of the query rows that follows.
struct ChunkIndexing {
  int64_t divisor = 1;
  int64_t query = 0;
};
BOUGH_HD inline ChunkIndexing chunk_indexing(int64_t count, int64_t window, int64_t trained_context, int64_t r0) {
  const int64_t room = trained_context - window - 1;
  ChunkIndexing x;
  if (room >= 1 && count > room) x.divisor = (count + room - 1) / room;
  x.query = std::min(r0, (count + x.divisor - 1) / x.divisor + window);
  return x;
}

class ScanPositions {
 public:
  BOUGH_HD ScanPositions(Scan scan, const QueryBlock& block, int64_t candidates, int64_t window, int64_t trained_context)
      : scan_(scan),
        r0_(block.r0),
        r1_(block.r1()),
        window_(window),
        trained_(trained_context),
        base_(std::max<int64_t>(0, block.r1() - trained_context)),
        indexing_(chunk_indexing(candidates, window, trained_context, block.r0)) {}

  // The two candidates of a pair stand at different distances.
  BOUGH_HD bool two_sided() const { return scan_ == Scan::relative; }
  // Otherwise every key stands at 0 and none is rotated.
  BOUGH_HD bool turns_keys() const { return scan_ != Scan::relative && scan_ != Scan::infllm; }
  // Candidate j's keys stand at j.
  BOUGH_HD bool numbered() const { return scan_ == Scan::chunk_indexed && indexing_.divisor == 1; }
  // Do two blocks' keys stand at the same positions, whatever the key?
  BOUGH_HD bool same_keys(const ScanPositions& other) const {
    if (!turns_keys()) return true;
    return scan_ == Scan::chunk_indexed && indexing_.divisor == other.indexing_.divisor;
  }
  // Of a row whose own position is p; of the right candidate in a two-sided scan, whose left one stands at the next position.
  BOUGH_HD int64_t query(int64_t p) const {
    if (!turns_keys()) return window_;
    return scan_ == Scan::chunk_indexed ? indexing_.query : p - base_;
  }
  // Of key i, which belongs to candidate `index`.
  BOUGH_HD int64_t key(int64_t i, int64_t index) const {
    switch (scan_) {
      case Scan::chunk_indexed: return index / indexing_.divisor;
      case Scan::dynamic_extend: return squeezed(i) - base_;
      case Scan::self_extend: return grouped(i) - base_;
      default: return 0;
    }
  }

 private:
  BOUGH_HD int64_t squeezed(int64_t i) const {
    const int64_t near = trained_ / 4;
    if (r1_ <= trained_ || i >= r1_ - near) return i;
    const int64_t edge = std::max<int64_t>(1, r0_ - near);
    return std::max(base_, edge + (i - edge) * (trained_ - near) / edge);
  }
  BOUGH_HD int64_t grouped(int64_t i) const {
    if (i >= base_) return i;
    const int64_t group = (r1_ + trained_ - 1) / trained_;
    return std::max(base_, r0_ - (r0_ - i + group - 1) / group);
  }

  Scan scan_;
  int64_t r0_;
  int64_t r1_;
  int64_t window_;
  int64_t trained_;
  int64_t base_;
  ChunkIndexing indexing_;
};

}  // namespace bough
