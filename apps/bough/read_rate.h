// What this machine's memory gives, measured once: the limit that decode is compared with.
#pragma once

namespace bough::cli {

// Bytes per second that `threads` threads read from 256 MiB together, the best of a few passes. 0 when there is no memory for it.
double measure_read_rate(int threads);

}  // namespace bough::cli
