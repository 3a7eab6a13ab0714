// Run while CMake configures: prints the level that a build for the processor at hand is made for.
#include <cstdio>

#include "bind/cpu/x86_level.h"

int main() { std::printf("%d", verglas::x86_level()); }
