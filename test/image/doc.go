// Package image builds the container image from the product's Dockerfile and runs it as
// operators do, on a Docker engine of its own. Its tests have the build tag engines; run
// them with make image-test. IMAGE_ARCHIVE names an image to test instead of building
// one, as docker save writes it.
package image
