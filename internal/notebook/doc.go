// Package notebook turns a session into a file and a file into a session's
// items. Its functions are pure: no files, no clock, no state.
//
//	ipynb  a Jupyter notebook, valid for nbformat 4.5; read again it gives the same items
//	py     cells of the percent format, everything else as comments; it compiles
//	md     what people read: code in fences, outputs as text, tables and pictures
//
// What comes from outside is foreign: notebooks are capped in size, cells and
// outputs, and nothing of them is taken that has not the right form.
//
// Source: nbformat's schemas v3 and v4.5; the percent format of jupytext.
package notebook
