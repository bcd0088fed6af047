// The only macros of the project: early return of a failed Status.
#pragma once

#include "bough/status.h"

#define BOUGH_CONCAT_(a, b) a##b
#define BOUGH_CONCAT(a, b) BOUGH_CONCAT_(a, b)

// Returns the Status of `expr` from the enclosing function when it is not ok.
#define BOUGH_RETURN_IF_ERROR(expr)                       \
  do {                                                    \
    if (::bough::Status s_ = (expr); !s_.ok()) return s_; \
  } while (false)

// Declares `decl` from the value of the Result `expr`, or returns its Status.
#define BOUGH_ASSIGN_OR_RETURN(decl, expr)                                                    \
  auto BOUGH_CONCAT(result_, __LINE__) = (expr);                                              \
  if (!BOUGH_CONCAT(result_, __LINE__).ok()) return BOUGH_CONCAT(result_, __LINE__).status(); \
  decl = std::move(*BOUGH_CONCAT(result_, __LINE__))
