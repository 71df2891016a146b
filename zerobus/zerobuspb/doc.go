// Package zerobuspb is the protocol of Zerobus Ingest over gRPC: zerobus.proto and
// what protoc generates from it. Run make proto to regenerate the .pb.go files.
package zerobuspb

//go:generate protoc --proto_path=. --go_out=. --go_opt=paths=source_relative --go-grpc_out=. --go-grpc_opt=paths=source_relative zerobus.proto
