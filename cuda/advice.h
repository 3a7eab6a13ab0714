// advice: what a user can do about an error of the CUDA runtime, one sentence per cause.
#pragma once
#include <cuda_runtime_api.h>

#include <string>

namespace verglas::cuda {

/// Cause and remedy in words; never empty.
std::string advice(cudaError_t code);

/// Whether the device had too little memory: the caller may try again with less.
bool is_out_of_memory(cudaError_t code);

}  // namespace verglas::cuda
