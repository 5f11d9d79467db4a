# How a layer of third-party packages is built: the locked packages of its requirements.txt for
# Lambda's architecture, with bytecode that stays valid in Lambda. `sam build` runs make in a copy
# of the layer's folder. The Makefile that includes this sets HERE, its own folder, and UNUSED,
# folders that nothing imports.

UV := $(or $(shell command -v uv),$(HERE)/../../.local/uv/bin/uv)
# The bytecode's magic number must be the runtime's: compile with the same minor version.
PYTHON = $(shell cd "$(HERE)" && "$(UV)" python find 3.13)

# The target, not this machine: ARCHITECTURE=x86_64 sam build
ARCHITECTURE ?= arm64
PLATFORM_arm64 := aarch64-manylinux_2_28
PLATFORM_x86_64 := x86_64-manylinux_2_28
PLATFORM = $(or $(PLATFORM_$(ARCHITECTURE)),$(error ARCHITECTURE is arm64 or x86_64, not "$(ARCHITECTURE)"))

TARGET = $(ARTIFACTS_DIR)/python
EXPORT := "$(UV)" export --quiet --frozen --no-emit-project --no-annotate --no-header \
	--format requirements-txt --output-file requirements.txt --project ../..

.PHONY: lock

build-%:
	"$(UV)" pip install --quiet --python "$(PYTHON)" --target "$(TARGET)" --python-version 3.13 \
		--python-platform $(PLATFORM) --only-binary :all: --require-hashes --no-deps --link-mode copy \
		-r requirements.txt
	# Packages ask importlib.metadata for versions (METADATA); licences travel with the code.
	find "$(TARGET)" -path '*.dist-info/*' -type f ! -name METADATA ! -ipath '*licen*' -delete
	find "$(TARGET)" -type d \( -name test -o -name tests -o -name __pycache__ \) -prune -exec rm -rf {} +
	find "$(TARGET)" -type f \( -name '*.pyi' -o -name '*.c' -o -name '*.h' -o -name .lock \) -delete
	rm -rf "$(TARGET)/bin" $(addprefix "$(TARGET)"/,$(UNUSED))
	find "$(TARGET)" -type d -empty -delete
	# SAM's zip dates every file 1980, which makes ordinary bytecode stale; hash-based is not.
	"$(PYTHON)" -m compileall -q --invalidation-mode unchecked-hash -s "$(ARTIFACTS_DIR)" -p /opt "$(TARGET)"
