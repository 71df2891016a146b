// Package docs holds the documents to the program: every link leads somewhere,
// every command line is one the program takes, every key of the configuration
// exists, and the commands of docs/quickstart.md do what the page promises. All of it
// is in the tests.
package docs
