# ActionCable without the rest of Rails, for puma: REDIS_URL=... puma -b tcp://127.0.0.1:PORT action_cable.ru

require "logger"
require "action_cable"
require "active_support/json"

# Messages are counted by two characters that Rails would escape.
ActiveSupport::JSON::Encoding.escape_html_entities_in_json = false

class Bench < ActionCable::Channel::Base
  def subscribed
    stream_from params["to"]
  end

  def echo(data)
    transmit data["t"]
  end

  def say(data)
    ActionCable.server.broadcast params["to"], data["t"]
  end
end

ActionCable.server.config.tap do |config|
  config.cable = { "adapter" => "redis", "url" => ENV.fetch("REDIS_URL") }
  config.connection_class = -> { ActionCable::Connection::Base }
  config.disable_request_forgery_protection = true
  config.logger = Logger.new(nil, level: Logger::FATAL)
end

run ActionCable.server
