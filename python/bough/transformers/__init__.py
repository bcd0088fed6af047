"""bough.transformers: Bough's attention in models of Hugging Face Transformers (Llama, Mistral, Qwen2, Qwen3).

    model = AutoModelForCausalLM.from_pretrained(...).eval()
    bough.transformers.enable(model, "default", extend=True)
    print(model.bough)  # the mode that is active, in one line
    model.generate(...)
    bough.transformers.disable(model)

Imported by its full name; needs torch and transformers. See docs/transformers.md.
"""

from ._cache import BoughCache
from ._enable import disable, enable
from ._enabled import MODELS, NAME, Enabled

__all__ = ["MODELS", "NAME", "BoughCache", "Enabled", "disable", "enable"]
