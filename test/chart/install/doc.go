// Package install installs the chart in a real cluster as a person would, and
// looks whether it does there what it says.
package install
