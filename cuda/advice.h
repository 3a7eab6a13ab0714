// advice: what a user can do about an error of the CUDA runtime, one sentence per cause.
#pragma once
#include <string>

namespace verglas::cuda {

/// Cause and remedy in words, by CUDA's number of the error (those of driver_types.h, fixed since CUDA 10.1);
/// never empty.
std::string advice(int code);

/// Whether the device had too little memory: the caller may try again with less.
bool is_out_of_memory(int code);

}  // namespace verglas::cuda
