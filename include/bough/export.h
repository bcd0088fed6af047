// BOUGH_API marks what the shared library exports.
#ifndef BOUGH_EXPORT_H
#define BOUGH_EXPORT_H

#if defined(__GNUC__)
#define BOUGH_API __attribute__((visibility("default")))
#else
#define BOUGH_API
#endif

#endif
