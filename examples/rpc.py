from threadko.rpc import ServiceRpc, rpc


class ServiceY:
    name = "service_y"

    @rpc
    def append_identifier(self, value):
        return f"{value}-y"


class ServiceX:
    name = "service_x"

    y = ServiceRpc("service_y")

    @rpc
    def remote_method(self, value):
        # The dependency calls the other service, wherever that runs, and waits for its answer.
        return self.y.append_identifier(f"{value}-x")
