// Package licenses has the licences of what is linked into the programs, written by
// make licences from the sources. policy.json says which are allowed; image.txt lists
// those of the sandbox image's wheels, whose texts are in the image; the page's are
// served beside it (web/public/assets/licenses.txt).
package licenses

import _ "embed"

// ThirdParty lists the Go modules in the programs, then gives every text once.
//
//go:embed third-party.txt
var ThirdParty string
