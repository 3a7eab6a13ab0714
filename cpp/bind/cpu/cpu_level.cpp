// verglas._cpu, loaded before a core is chosen: compiled for the baseline so that it loads anywhere, and on
// Python's own interface, because it has one function.
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "bind/cpu/x86_level.h"

namespace {

PyObject* level(PyObject*, PyObject*) { return PyLong_FromLong(verglas::x86_level()); }

PyMethodDef methods[] = {
    {"x86_level", level, METH_NOARGS, "1..4 on x86-64 (psABI level), 0 on other processors."},
    {nullptr, nullptr, 0, nullptr}};

PyModuleDef definition = {PyModuleDef_HEAD_INIT,
                          "_cpu",
                          "Which instruction-set level this processor runs.",
                          -1,
                          methods,
                          nullptr,
                          nullptr,
                          nullptr,
                          nullptr};

}  // namespace

PyMODINIT_FUNC PyInit__cpu() { return PyModule_Create(&definition); }
