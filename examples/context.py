from threadko.contextdata import Language, UserId
from threadko.dependency_providers import Config
from threadko.rpc import rpc

GREETINGS = {"en": "Hello", "de": "Hallo"}


class Greeter:
    name = "greeter"

    # What the caller carries along, on every call and event that follows from the first.
    language = Language()
    user_id = UserId()
    config = Config()

    @rpc
    def greet(self):
        word = GREETINGS.get(self.language, GREETINGS["en"])
        return f"{word}, {self.user_id or self.config.get('GUEST', 'stranger')}!"
