// Package compose starts docker-compose.yml on a Docker engine of its own, where images
// made locally stand in for those of Docker Hub. Its tests have the build tag engines;
// run them with make compose-test.
package compose
