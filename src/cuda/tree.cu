// tree: the choice of a round, and that of the instance which scores.
#include "cuda/tree.cuh"

#include "cuda/instance.cuh"
#include "cuda/select_cut.cuh"

namespace bough::cuda {
namespace {

// The halves of one list's round, which belong to threads in runs; in round 0 the first branches, of which all are kept.
template <int THREADS, int PER>
struct Kept {
  const Branch* from;
  int count;
  int branches;
  int blocks;  // key blocks; 0: not round 0
  Cut cut;     // of the ones kept
  bool all;
  const Keys<THREADS, PER>& keys;

  __device__ Branch at(int j) const {
    if (blocks == 0) return from[j];
    const auto start = static_cast<int32_t>(first_branch_start(j, branches, blocks));
    return {start, static_cast<int32_t>(first_branch_start(j + 1, branches, blocks)) - start};
  }
  // Calls f with what is kept, where `ties` equal ones are before this thread's.
  template <typename F>
  __device__ void each_kept(int ties, const F& f) const {
    keys.each([&](int j, uint32_t key) {
      if (j >= count) return;
      if (all || cut.takes(key, ties)) f(at(j));
      ties += static_cast<int>(cut.ties(key));
    });
  }
};

template <int THREADS, int PER>
__global__ void __launch_bounds__(THREADS) tree_keep_kernel(Problem p, int first, int number) {
  __shared__ CutShared s;
  const int t = threadIdx.x, block = first + blockIdx.x, head = blockIdx.y, n = p.tree.branches;
  begin();
  const BlockInfo b = block_at(p, block);
  if (b.rows == 0 || b.renewal != Renewal::search || b.first > 0) return;
  const int owner = owner_of(p, block), shift = p.stages.shift[0], blocks = max(0, b.w0 - p.sinks) >> shift;
  const int64_t list = list_of(p, block, head);
  int32_t* out = p.lists.start[1] + (static_cast<int64_t>(owner) * p.list_heads + head) * p.lists.capacity[1];
  if (number == 0 && t == 0 && head == 0) p.lists.meta[1][owner] = {min(n, blocks), 0, 0, 0};
  if (number == 0 && blocks <= n) {
    for (int j = t; j < blocks; j += THREADS) out[j] = p.sinks + (j << shift);
    if (t == 0) p.tree.live[list] = 0;
    return;
  }
  const int live = number == 0 ? n : p.tree.live[list];
  if (live == 0) return;
  uint32_t* scores = p.scores + list * p.score_capacity;
  const Keys<THREADS, PER> keys(scores, number == 0 ? 0 : live, 2 * n);
  Kept<THREADS, PER> round{tree_halves(p, list, number + 1), live, n, number == 0 ? blocks : 0, {}, number == 0 || live <= n, keys};
  int ties = 0, total;
  if (!round.all) {
    round.cut = find_cut(keys, s, n);
    int own = 0;
    keys.each([&](int, uint32_t key) { own += static_cast<int>(round.cut.ties(key)); });
    ties = sum_before(own, s.sums, &total);
  }
  int pieces = 0;
  bool splits = false;
  round.each_kept(ties, [&](Branch branch) {
    pieces += min(branch.size, 2);
    splits = splits || branch.size > 1;
  });
  splits = __syncthreads_or(static_cast<int>(splits)) != 0;
  int at = sum_before(pieces, s.sums, &total);
  Branch* halves = tree_halves(p, list, number);
  round.each_kept(ties, [&](Branch branch) {
    if (!splits) {
      if (branch.size > 0) out[at++] = p.sinks + (branch.start << shift);
      return;
    }
    const int half = branch.size / 2;
    if (half > 0) halves[at++] = {branch.start, half};
    if (branch.size > 0) halves[at++] = {branch.start + half, branch.size - half};
  });
  __syncthreads();
  for (int j = t; j < live && number > 0; j += THREADS) scores[j] = 0;
  if (t == 0) p.tree.live[list] = splits ? total : 0;
}

}  // namespace

cudaError_t tree_keep(const Problem& p, ImageShape shape, int round, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>(shape.blocks), static_cast<unsigned>(p.list_heads));
  const int most = 2 * p.tree.branches;
  if (most <= 512) return launch(tree_keep_kernel<256, 2>, grid, 256, 0, stream, p, shape.first, round);
  if (most <= 2048) return launch(tree_keep_kernel<512, 4>, grid, 512, 0, stream, p, shape.first, round);
  return launch(tree_keep_kernel<1024, 0>, grid, 1024, 0, stream, p, shape.first, round);
}

template <typename T, Kv KV, int D>
cudaError_t tree_instance(const Problem& p, void* images, cudaStream_t stream);

cudaError_t tree(const Problem& p, void* images, cudaStream_t stream) {
#define BOUGH_CUDA_CALL(T, KV, D) tree_instance<T, KV, D>(p, images, stream)
  BOUGH_CUDA_INSTANCES(BOUGH_CUDA_CASE)
#undef BOUGH_CUDA_CALL
  return cudaErrorNotSupported;
}

}  // namespace bough::cuda
