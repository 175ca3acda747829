// Package tools pins what is needed to build and check Hogstream but is no
// part of it: the linter, the vulnerability checker and the test runner. It is
// a module of its own so that the product's go.mod names only what the product
// imports. The Makefile builds them into bin/ once and again when a pin moves.
package tools
