// Package zerobuspb is the protocol of Zerobus Ingest over gRPC: zerobus.proto and
// what protoc, protoc-gen-go and protoc-gen-go-grpc generate from it. To generate it
// again, install them and run go generate ./zerobus/zerobuspb.
package zerobuspb

//go:generate protoc --proto_path=. --go_out=. --go_opt=paths=source_relative --go-grpc_out=. --go-grpc_opt=paths=source_relative zerobus.proto
