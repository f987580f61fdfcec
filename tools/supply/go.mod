// What looks after everything that is not ours: a module of its own, so that
// neither the product nor the linters are built with its dependencies.
module github.com/caesarion/caesarion/tools/supply

go 1.26.3

require (
	github.com/CycloneDX/cyclonedx-go v0.12.0
	github.com/erofs/go-erofs v0.3.1
	github.com/google/licensecheck v0.3.1
	github.com/xeipuuv/gojsonschema v1.2.0
	golang.org/x/vuln v1.9.0
)

require (
	github.com/xeipuuv/gojsonpointer v0.0.0-20180127040702-4e3ac2762d5f // indirect
	github.com/xeipuuv/gojsonreference v0.0.0-20180127040603-bd5ef7bd5415 // indirect
	golang.org/x/mod v0.42.0 // indirect
	golang.org/x/sync v0.24.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
	golang.org/x/telemetry v0.0.0-20261010193011-f71dc92da45e // indirect
	golang.org/x/tools v0.52.0 // indirect
)
