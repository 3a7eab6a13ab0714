// Warp matrix products (nvcuda::wmma) and bfloat16: CUDA's, or those of the host emulation.
#pragma once
#if defined(VERGLAS_CUDA_EMULATE)
#include "cuda/emulate/wmma.h"
#else
#include <cuda_bf16.h>
#include <mma.h>
#endif
