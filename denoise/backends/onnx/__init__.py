"""ONNX: export of denoisers, and exported denoisers in onnxruntime."""
