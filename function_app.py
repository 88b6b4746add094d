"""Every endpoint by name; what each does is in `routing.api`."""

import azure.functions as func
from azurefunctions.extensions.http.fastapi import Request, Response

from routing import api, explain_api, openai_api, page, status

app = func.FunctionApp(http_auth_level=func.AuthLevel.ANONYMOUS)  # callers are ours to check: clients send Bearer keys


@app.function_name("page")
@app.route(route="{ignored:maxlength(0)?}", methods=["GET"])  # the root: an empty route would mean the function's name
async def root(req: Request) -> Response:
    return await page.page(req)


@app.function_name("chat_component")
@app.route(route="llm-chat.js", methods=["GET"])
async def chat_component(req: Request) -> Response:
    return await page.component(req)


@app.function_name("chat_completions")
@app.route(route="v1/chat/completions", methods=["POST"])
async def chat_completions(req: Request) -> Response:
    return await api.chat(req)


@app.function_name("messages")
@app.route(route="v1/messages", methods=["POST"])
async def messages(req: Request) -> Response:
    from routing import messages_api  # 20 ms that only its callers should wait for

    return await messages_api.messages(req)


@app.function_name("count_tokens")
@app.route(route="v1/messages/count_tokens", methods=["POST"])
async def count_tokens(req: Request) -> Response:
    from routing import messages_api  # the same

    return await messages_api.count_tokens(req)


@app.function_name("responses")
@app.route(route="v1/responses", methods=["POST"])
async def responses(req: Request) -> Response:
    from routing import responses_api  # the same

    return await responses_api.responses(req)


@app.function_name("embeddings")
@app.route(route="v1/embeddings", methods=["POST"])
async def embeddings(req: Request) -> Response:
    return await openai_api.embeddings(req)


@app.function_name("completions")
@app.route(route="v1/completions", methods=["POST"])
async def completions(req: Request) -> Response:
    return await openai_api.completions(req)


@app.function_name("models")
@app.route(route="v1/models", methods=["GET"])
async def models(req: Request) -> Response:
    return await api.models(req)


@app.function_name("model")
@app.route(route="v1/models/{*id}", methods=["GET"])
async def model(req: Request) -> Response:
    return await api.model(req)


@app.function_name("health")
@app.route(route="health", methods=["GET"])
async def health(req: Request) -> Response:
    return await api.health(req)


@app.function_name("ready")
@app.route(route="ready", methods=["GET"])
async def ready(req: Request) -> Response:
    return await status.ready(req)


@app.function_name("explain")
@app.route(route="v1/router/explain", methods=["POST"])
async def explain(req: Request) -> Response:
    return await explain_api.explain(req)


@app.function_name("decision")
@app.route(route="v1/router/decisions/{id}", methods=["GET"])
async def decision(req: Request) -> Response:
    return await status.decision(req)


@app.function_name("decisions")
@app.route(route="v1/router/decisions", methods=["GET"])
async def decisions(req: Request) -> Response:
    return await status.decisions(req)


@app.function_name("router_caller")
@app.route(route="v1/router/caller", methods=["GET"])
async def router_caller(req: Request) -> Response:
    return await page.caller(req)


@app.function_name("router_status")
@app.route(route="v1/router/status", methods=["GET"])
async def router_status(req: Request) -> Response:
    return await status.status(req)


@app.function_name("usage")
@app.route(route="v1/router/usage", methods=["GET"])
async def usage(req: Request) -> Response:
    from routing import usage_api  # the same

    return await usage_api.usage(req)


@app.function_name("notices")
@app.route(route="v1/router/notices/negotiate", methods=["POST"])
async def notices(req: Request) -> Response:
    from routing import notices_api  # only pages that listen need it

    return await notices_api.negotiate(req)


@app.function_name("breaker_order")
@app.route(route="v1/router/breakers/{target}", methods=["POST"])
async def breaker_order(req: Request) -> Response:
    return await status.order(req)


@app.function_name("remove_old_decisions")
@app.timer_trigger(schedule="0 17 3 * * *", arg_name="timer")
async def remove_old_decisions(timer: func.TimerRequest) -> None:
    from routing import upkeep

    await upkeep.remove_old_decisions()


@app.function_name("unknown")
@app.route(route="v1/{*rest}", methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
async def unknown(req: Request) -> Response:
    return await api.not_found(req)
