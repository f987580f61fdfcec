// Package faults breaks an installation on a real cluster while people use it,
// and looks whether they lose anything: three servers from the chart, Postgres,
// readers that come back after the last event they saw.
package faults
