// The Python module offramp._native. Each file beside this one binds one part.
#include "bind.h"

NB_MODULE(_native, m) {
  m.doc() = "offramp's C++ core";
  bind_kernels(m);
  bind_model(m);
}
