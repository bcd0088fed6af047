// Ctrl-C: the first one asks to stop, the next one ends the process at once.
#pragma once

namespace bough::cli {

void catch_interrupt();  // once more: what was asked is forgotten, and the next one is again a first one
bool interrupted();

}  // namespace bough::cli
