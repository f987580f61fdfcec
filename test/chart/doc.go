// Package chart tests the Helm chart of deploy/helm: what it renders, what it
// refuses, and that the document explains all of it. The package install beside
// it installs the chart in a real cluster.
package chart
