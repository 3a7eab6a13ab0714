// Constants that the standard library lacks in C++17.
#pragma once

namespace verglas::math {

constexpr double kPi = 3.14159265358979323846;

}  // namespace verglas::math
