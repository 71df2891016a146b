// Package deploy holds the tests of the files the bridge is deployed with.
package deploy
