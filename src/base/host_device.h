// BOUGH_HD marks small functions that run on the host and, where the CUDA compiler reads them, on the device too.
#pragma once

#ifdef __CUDACC__
#define BOUGH_HD __host__ __device__
#else
#define BOUGH_HD
#endif
