// Package config holds all settings of Caesarion and says where they come from.
//
// Order, the later wins: defaults, the YAML file, CAESARION_* environment
// variables, flags. The struct tags of [Base] and [Server] give all four their
// names; github.com/alecthomas/kong reads them. A key of the file is the name
// of the flag with underscores (listen, data_dir), and templates exist in the
// file only. A key that nobody knows is an error, as is a value that Validate
// refuses; both messages name key, value and what is allowed.
//
// No other package reads the environment.
package config
