// Package browser tests the console as people meet it: Chromium looks at a bridge that
// runs as a process of its own, between an in-process Kafka and an emulated workspace,
// or at the console alone with answers of the test. Everything is in its tests.
//
// They are skipped where there is no Chromium or no axe-core, which npm fetches into
// .cache; REQUIRE_CHROMIUM=1 makes that a failure. CHROMIUM names the program when it is
// not on the path. BRIDGE_SCREENSHOTS names a folder for pictures of the pages.
package browser
