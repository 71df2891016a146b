// Package admin serves the install API: it installs, changes and removes integrations.
package admin
