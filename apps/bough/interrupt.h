// Ctrl-C: the first one asks to stop, the next one ends the process at once.
#pragma once

namespace bough::cli {

void catch_interrupt();
bool interrupted();

}  // namespace bough::cli
