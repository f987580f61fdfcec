// Command supply looks after what comes from others: Go modules that are linked
// into the programs, npm packages that are built into the page, wheels and Debian
// packages of the sandbox image.
//
//	supply licences [-check]      write (or compare) the lists and texts of licences
//	supply locks                  see that whatever is installed is locked by hash
//	supply sbom -out FOLDER       write bills of materials (CycloneDX 1.6, JSON)
//	supply audit [-strict]        ask for known vulnerabilities
//
//	inventory (golang.go, npm.go, image.go) ──▶ []Component ──▶ licences.go, policy.go
//	                                                       └──▶ sbom.go
//	audit*.go ──▶ []Finding ──▶ accepted.json ──▶ exit status
//
// It runs in the repository's root. What it writes is the same bytes each time:
// lists are sorted, nothing carries the time.
package main
