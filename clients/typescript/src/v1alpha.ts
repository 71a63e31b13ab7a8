/** The generated messages and services of package `trunkline.v1alpha`, which may still change. */
export * from "./trunkline/v1alpha/config_service_pb.js";
export * from "./trunkline/v1alpha/pipeline_service_pb.js";
export * from "./trunkline/v1alpha/route_pb.js";
export * from "./trunkline/v1alpha/trace_pb.js";
export * from "./trunkline/v1alpha/trace_service_pb.js";
