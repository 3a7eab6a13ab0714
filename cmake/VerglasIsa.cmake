# VERGLAS_ISA_LEVELS in words that the compiler knows.

if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
  set(VERGLAS_X86_64 TRUE)
  set(VERGLAS_ALL_LEVELS v2 v3 v4)
else()
  set(VERGLAS_X86_64 FALSE)
  set(VERGLAS_ALL_LEVELS generic)
endif()

# The best psABI level that this processor runs, not -march=native: the module bears its level's name, so that a shared
# installation says on an older processor what is wrong, where native code would die of an illegal instruction; and its
# results are bit for bit those of the wheel.
function(verglas_host_level out)
  set(${out} "${VERGLAS_ALL_LEVELS}" PARENT_SCOPE)
  if(NOT VERGLAS_X86_64 OR CMAKE_CROSSCOMPILING)
    return()
  endif()
  try_run(status compiled "${CMAKE_BINARY_DIR}/level" "${CMAKE_SOURCE_DIR}/cmake/level.cpp"
          CMAKE_FLAGS "-DINCLUDE_DIRECTORIES=${CMAKE_SOURCE_DIR}/cpp" RUN_OUTPUT_VARIABLE level)
  if(NOT compiled OR NOT status EQUAL 0)
    message(WARNING "this processor's level could not be found out: every level is built")
  elseif(level LESS 2)
    message(FATAL_ERROR "this processor is below x86-64-v2 (no SSE4.2), which verglas does not run on; "
                        "for another machine set VERGLAS_ISA_LEVELS=all")
  else()
    set(${out} "v${level}" PARENT_SCOPE)
  endif()
endfunction()

function(verglas_isa_levels out)
  if(VERGLAS_ISA_LEVELS STREQUAL "host")
    verglas_host_level(levels)
  elseif(VERGLAS_ISA_LEVELS STREQUAL "all")
    set(levels ${VERGLAS_ALL_LEVELS})
  else()
    set(levels ${VERGLAS_ISA_LEVELS})
  endif()
  list(JOIN levels ", " words)
  message(STATUS "verglas: instruction-set levels ${words} (VERGLAS_ISA_LEVELS=${VERGLAS_ISA_LEVELS})")
  set(${out} "${levels}" PARENT_SCOPE)
endfunction()

function(verglas_isa_flags level out)
  if(level STREQUAL "generic")
    set(flags "")
  elseif(level STREQUAL "native")
    set(flags -march=native)
  elseif(level MATCHES "^v[234]$")
    set(flags -march=x86-64-${level})
  else()
    message(FATAL_ERROR "VERGLAS_ISA_LEVELS: unknown level '${level}'; expected host, all, or a list of v2, v3, v4, "
                        "generic, native")
  endif()
  if(level STREQUAL "v4" OR (level STREQUAL "native" AND VERGLAS_X86_64))
    list(APPEND flags -mprefer-vector-width=512)
  endif()
  set(${out} "${flags}" PARENT_SCOPE)
endfunction()
